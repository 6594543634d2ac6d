"""A secret, in whatever way it is given, is never shown."""

import json
from pathlib import Path
from typing import Final

import pytest
from structlog.testing import capture_logs

from tests.settings.given import CANARY, Give, refused
from worker.errors import ConfigurationError
from worker.settings import FIELDS, SECRETS, Settings
from worker.settings.checks import CONFIG, FOLLOW, load, warn_of_unknown
from worker.settings.masked import as_json, as_lines

GIVEN: Final = {
    "PUBNUB_SUBSCRIBE_KEY": f"sub-c-{CANARY}",
    "PUBNUB_PUBLISH_KEY": f"pub-c-{CANARY}",
    "PUBNUB_SECRET_KEY": f"sec-c-{CANARY}",
    "PUBNUB_AUTH_TOKEN": f"q+{CANARY}/x=",
    "REDIS_URL": f"redis://worker:{CANARY}-word@localhost:6379/1?socket_timeout=2",
    "TALLY_API_TOKEN": f"{CANARY}-of-the-api/+=",
}


@pytest.fixture(params=["environment", "file", ".env", "file named in .env"])
def source(request: pytest.FixtureRequest, give: Give, dotenv: Path, tmp_path: Path) -> str:
    """Give every secret in this way, and return the beginning of its source."""
    for name, secret in GIVEN.items():
        (tmp_path / name).write_text(f" \r\n{secret}\n\n")  # as editors and shells leave it
    files = {f"{name}_FILE": str(tmp_path / name) for name in GIVEN}
    texts = files if "file" in request.param else GIVEN

    if ".env" in request.param:
        dotenv.write_text("".join(f"{name}='{text}'\n" for name, text in texts.items()))
    else:
        give(**texts)
    give(TALLY_CHANNELS="room")
    return "file " if "file" in request.param else str(request.param)


def everything_shown(settings: Settings) -> str:
    """Return every form of the settings: for programmers, people, programs, logs."""
    with capture_logs() as logs:
        warn_of_unknown(settings)
    forms = [repr(settings), str(settings), f"{settings}", repr(settings.report), str(logs)]
    shown = as_json(settings)
    return "\n".join([*forms, *as_lines(settings), json.dumps(shown), repr(shown)])


def test_every_secret_is_tested_here() -> None:
    """Also one that is added later."""
    assert GIVEN.keys() == set(SECRETS)


def test_every_way_leads_to_the_same_field(source: str) -> None:
    """The source says which way it was."""
    settings = load(FOLLOW)
    secrets = {name: getattr(settings, FIELDS[name]) for name in SECRETS}
    others = [getattr(settings, FIELDS[name]) for name in FIELDS if name not in SECRETS]

    assert secrets == GIVEN
    assert all(map(settings.is_set, SECRETS))
    assert CANARY not in repr(others)
    assert all(settings.source(name).startswith(source) for name in SECRETS)


@pytest.mark.usefixtures("source")
def test_shown_settings_hold_no_secret() -> None:
    """Only its length, or an address without its password."""
    shown = everything_shown(load(FOLLOW))

    assert CANARY not in shown
    assert "set, 12 characters" in shown
    assert "redis://worker:***@localhost:6379/1?socket_timeout=2" in shown


@pytest.mark.usefixtures("source")
def test_errors_hold_no_secret(give: Give) -> None:
    """All other settings are wrong, and secrets stand in unknown variables, too."""
    others = [name for name in FIELDS if name not in SECRETS and not name.endswith("_FILE")]
    give(**dict.fromkeys(others, "a b/?"), **{f"{name}S": CANARY for name in SECRETS})

    assert "TALLY_NAMESPACE" in "".join(refused())


@pytest.mark.parametrize("name", SECRETS)
@pytest.mark.parametrize(
    "secret",
    ["canary canary", "canary\x1b[31m", "http://canary", "canary#?/@:", "canary" * 20_000],
    ids=["blank", "control", "address", "marks", "long"],
)
@pytest.mark.parametrize("is_in_a_file", [False, True])
def test_a_malformed_secret_is_not_shown(
    give: Give, tmp_path: Path, name: str, secret: str, is_in_a_file: bool
) -> None:
    """It is refused by the name of its setting, or shown as every other secret is."""
    if is_in_a_file:
        (tmp_path / name).write_text(secret)
        give(**{f"{name}_FILE": str(tmp_path / name)})
    else:
        give(**{name: secret})

    try:
        shown = everything_shown(load(CONFIG)) + everything_shown(load(CONFIG, checks_later=True))
    except ConfigurationError as error:
        shown = str(error) + repr(error)
        assert name in shown
    assert CANARY not in shown


@pytest.mark.parametrize("name", ["PUBNUB_USER_ID", "TALLY_CHANNELS"])
def test_the_search_finds_a_shown_word(give: Give, name: str) -> None:
    """A value that is no secret is found, so the search covers what is shown."""
    give(**{name: CANARY})
    assert everything_shown(load(CONFIG)).count(CANARY) >= 3
