"""Whichever way a secret is given, it ends in one place, and nothing that tells of the settings tells it."""

import json
from pathlib import Path
from typing import Final

import pytest
from structlog.testing import capture_logs

from worker.errors import ConfigurationError
from worker.settings import FIELDS, SECRETS, Settings
from worker.settings.checks import FOLLOW, SHOW, load, load_usable, warn_of_unknown
from worker.settings.masked import as_json, as_lines

CANARY: Final = "canary"
GIVEN: Final = {
    "PUBNUB_SUBSCRIBE_KEY": f"sub-c-{CANARY}",
    "PUBNUB_PUBLISH_KEY": f"pub-c-{CANARY}",
    "PUBNUB_SECRET_KEY": f"sec-c-{CANARY}",
    "PUBNUB_AUTH_TOKEN": f"q+{CANARY}/x=",
    "REDIS_URL": f"redis://worker:{CANARY}-word@localhost:6379/0",
}
WAYS: Final = ("environment", "file", ".env", "file named in .env")


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """Give every secret there is, all of them this way."""
    way: str = request.param
    lines = []
    for name, secret in GIVEN.items():
        (tmp_path / name).write_text(f"{secret}\n")
        match way:
            case "environment":
                monkeypatch.setenv(name, secret)
            case "file":
                monkeypatch.setenv(f"{name}_FILE", str(tmp_path / name))
            case ".env":
                lines.append(f"{name}='{secret}'\n")
            case _:
                lines.append(f"{name}_FILE={tmp_path / name}\n")
    (tmp_path / ".env").write_text("".join(lines))
    monkeypatch.setenv("TALLY_CHANNELS", "room")
    return way


def all_told(settings: Settings) -> str:
    """Return every form in which settings are told: to a programmer, a person, a program, a log."""
    with capture_logs() as logs:
        warn_of_unknown(settings)
    forms = [repr(settings), str(settings), f"{settings}", repr(settings.given), str(logs)]
    return "\n".join(
        [*forms, *as_lines(settings), json.dumps(as_json(settings)), repr(as_json(settings))]
    )


def test_every_secret_is_given_here() -> None:
    """A new one, too."""
    assert GIVEN.keys() == set(SECRETS)


def test_every_way_leads_to_the_same_place(way: str) -> None:
    """The field of that name, and no other; its source says which way it came."""
    settings = load(FOLLOW)
    assert {name: getattr(settings, FIELDS[name]) for name in SECRETS} == GIVEN
    others = {
        field: getattr(settings, field) for name, field in FIELDS.items() if name not in SECRETS
    }
    assert CANARY not in repr(others)
    expected = {"environment": "environment", ".env": ".env"}.get(way, "file ")
    assert all(settings.source(name).startswith(expected) for name in SECRETS)


@pytest.mark.usefixtures("way")
def test_nothing_that_tells_of_settings_tells_a_secret() -> None:
    """As an object, as lines, as JSON, in the log: only how long it is, and of an address all but the password."""
    settings = load(FOLLOW)

    assert CANARY not in all_told(settings)
    assert "set, 12 characters" in all_told(settings)
    assert "redis://worker:***@localhost:6379/0" in all_told(settings)


@pytest.mark.usefixtures("way")
def test_no_error_tells_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where everything else is wrong, and secrets stand under names that are slips, too."""
    for name in FIELDS.keys() - set(SECRETS):
        if not name.endswith("_FILE"):
            monkeypatch.setenv(name, "a b/?")
    for name in SECRETS:
        monkeypatch.setenv(f"{name}S", CANARY)
    with pytest.raises(ConfigurationError) as error:
        load(SHOW)
    assert "TALLY_NAMESPACE" in str(error.value)
    assert CANARY not in str(error.value) + repr(error.value)


@pytest.mark.parametrize("name", SECRETS)
@pytest.mark.parametrize(
    "secret",
    [
        f"{CANARY} {CANARY}",
        f"{CANARY}\x1b[31m",
        f"http://{CANARY}",
        f"{CANARY}#?/@:",
        CANARY * 20_000,
    ],
)
@pytest.mark.parametrize("is_in_a_file", [False, True])
def test_a_secret_that_is_wrong_is_not_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, secret: str, is_in_a_file: bool
) -> None:
    """It is refused by the name of its setting, if at all, or told as every other is."""
    if is_in_a_file:
        (tmp_path / name).write_text(secret)
        monkeypatch.setenv(f"{name}_FILE", str(tmp_path / name))
    else:
        monkeypatch.setenv(name, secret)
    try:
        told = all_told(load(SHOW)) + all_told(load_usable(SHOW))
    except ConfigurationError as error:
        told = str(error) + repr(error)
        assert name in told
    assert CANARY not in told


@pytest.mark.parametrize("name", ["PUBNUB_USER_ID", "TALLY_CHANNELS"])
def test_a_word_that_is_told_is_found(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Where it stands for what is no secret: what is looked through here is all that there is to see."""
    monkeypatch.setenv(name, CANARY)
    assert all_told(load(SHOW)).count(CANARY) >= 3
