"""All problems are reported together, each with its setting and its source."""

from pathlib import Path

import pytest
from structlog.testing import capture_logs

from tests.settings.given import CANARY, Give, refused
from worker.errors import ConfigurationError
from worker.settings.checks import (
    CONFIG,
    CONNECTS,
    COUNTED,
    FOLLOW,
    REDIS_ONLY,
    demand,
    everything_wrong,
    load,
    warn_of_unknown,
)

PROBLEMS = {
    "TALLY_HISTORY_RATE": ("fast", "TALLY_HISTORY_RATE: Input should be a valid number"),
    "PUBNUB_SECRET_KEY": ("sec-c-canary", "PUBNUB_SECRET_KEY needs PUBNUB_PUBLISH_KEY"),
    "PUBNUB_USER_ID": (" ", "PUBNUB_USER_ID is empty: give this worker a user id."),
    "REDIS_URL": ("canary", "REDIS_URL must begin with one of redis://, rediss://, unix://, "),
    "TALLY_NAMESPACE": ("a b", "TALLY_NAMESPACE is 'a b': use letters, digits"),
    "TALLY_CHANNELS": ("a/b,c:d,room", "The channel name 'a/b' has '/' in it; PubNub takes no"),
    "TALLY_CHANNEL_GROUPS": ("e.*", "The channel name 'e.*' has '*' in it; PubNub takes no"),
    "TALLY_TYPES": (
        "edited",
        "Nothing would be counted: TALLY_IGNORED_TYPES (edited,deleted,threadRootId) has",
    ),
    "TALLY_TOMBSTONE_SECONDS": (
        "30",
        "TALLY_TOMBSTONE_SECONDS (30) must be more than TALLY_SETTLE_SECONDS (60):",
    ),
    "TALLY_RETENTION_DAYS": (
        "0.002",
        "TALLY_RETENTION_DAYS (0.002 days) is too short: a message would expire before it can be",
    ),
}
"""Setting → a wrong text, and the beginning of the sentence about it."""
WRONG = {name: text for name, (text, _) in PROBLEMS.items()}


def test_all_problems_are_reported_together(give: Give) -> None:
    """Single settings, settings together, and what Redis and PubNub would refuse."""
    give(**WRONG)
    lines = refused()

    for line, (name, (_, sentence)) in zip(lines, PROBLEMS.items(), strict=True):
        assert line.startswith(sentence)
        assert line.endswith(f"({name}: environment)")
    assert "'c:d' has ':' in it" in lines[5]

    first, missing, *others = refused(CONNECTS)
    assert missing.startswith("PUBNUB_SUBSCRIBE_KEY is not set. Copy")
    assert [first, *others] == lines


def test_a_problem_is_reported_only_once(give: Give) -> None:
    """A setting that is wrong by itself is neither compared with another nor missing."""
    give(
        TALLY_SETTLE_SECONDS="soon",
        TALLY_TOMBSTONE_SECONDS="30",
        TALLY_CHANNELS_FILE="/nowhere/at/all",
        PUBNUB_SUBSCRIBE_KEY_FILE="/nowhere/at/all",
        PUBNUB_SECRET_KEY="sec-c-1",
        PUBNUB_PUBLISH_KEY="pub c",
    )
    assert [line.split()[0] for line in refused(FOLLOW)] == [
        "PUBNUB_SUBSCRIBE_KEY_FILE:",
        "PUBNUB_PUBLISH_KEY:",
        "TALLY_SETTLE_SECONDS:",
        "TALLY_CHANNELS_FILE:",
    ]


@pytest.mark.parametrize(("days", "settle"), [("0", "60"), ("0.002084", "60"), ("0.0003", "8")])
def test_a_retention_that_can_be_compared_is_accepted(give: Give, days: str, settle: str) -> None:
    """The least that the refusal names is enough; a shorter settle time allows a shorter one."""
    give(TALLY_RETENTION_DAYS=days, TALLY_SETTLE_SECONDS=settle)

    settings = load(CONFIG)

    assert settings.retention_seconds == round(float(days) * 86_400)


def test_a_retention_too_short_is_refused_with_the_least(give: Give) -> None:
    """With its value, the least, and where the least comes from."""
    give(TALLY_RETENTION_DAYS="0.01", TALLY_SETTLE_SECONDS="300")

    (sentence,) = refused(CONFIG)

    assert "TALLY_RETENTION_DAYS (0.01 days)" in sentence
    assert "0.010417 days at least, which is 3 times TALLY_SETTLE_SECONDS (300 s)" in sentence


def test_a_worker_needs_something_to_follow(give: Give, tmp_path: Path) -> None:
    """Channels, groups, or a list with a channel. Other commands do without."""
    give(PUBNUB_SUBSCRIBE_KEY="demo", TALLY_CHANNELS_FILE="channels")
    path = tmp_path / "channels"
    path.write_text("# none yet\n")
    load(CONNECTS)
    (line,) = refused(FOLLOW)
    assert line.startswith("Nothing to follow: set TALLY_CHANNELS or TALLY_CHANNEL_GROUPS.")
    assert line.endswith("(TALLY_CHANNELS_FILE: environment)")

    path.write_text("room\n")
    assert load(FOLLOW).all_channels() == ("room",)


def test_unknown_variables_are_listed_beside_problems(give: Give) -> None:
    """They may be the cause: for a worker that starts, and for the doctor."""
    give(PUBNUB_SUBSCRIBE_KEY="demo", TALLY_CHANELS=CANARY)
    missing, unknown = refused(FOLLOW)
    assert missing.startswith("Nothing to follow: set TALLY_CHANNELS")
    assert unknown == "TALLY_CHANELS (environment) is no setting; is TALLY_CHANNELS meant?"

    settings = load(FOLLOW, checks_later=True)
    with pytest.raises(ConfigurationError, match=r"Nothing to follow.* is TALLY_CHANNELS meant\?$"):
        demand(settings, FOLLOW.checks)


def test_readers_need_only_the_settings_of_redis(give: Give) -> None:
    """The problems of other settings do not keep anyone from reading."""
    give(**WRONG, PUBNUB_AUTH_TOKEN_FILE="/nowhere/at/all")
    assert [line.split()[0] for line in refused(REDIS_ONLY)] == ["REDIS_URL", "TALLY_NAMESPACE"]

    give(REDIS_URL="redis://localhost", TALLY_NAMESPACE="fine")
    assert load(REDIS_ONLY).namespace == "fine"


def test_the_doctor_makes_its_checks_later(give: Give) -> None:
    """It refuses every problem together, also settings that are wrong by themselves."""
    give(TALLY_NAMESPACE="a b", TALLY_TYPES="edited")
    settings = load(FOLLOW, checks_later=True)
    with pytest.raises(ConfigurationError) as error:
        demand(settings, COUNTED)
    for words in ("TALLY_NAMESPACE is", "Nothing would be", "Nothing to", "SUBSCRIBE_KEY is not"):
        assert words in str(error.value)

    give(TALLY_LOG_LEVEL="loud")
    expected = r"(?s)TALLY_LOG_LEVEL.*TALLY_NAMESPACE.*Nothing would be counted"
    settings = load(FOLLOW, checks_later=True)
    with pytest.raises(ConfigurationError, match=expected):
        raise everything_wrong(settings)
    assert not settings.report.is_known("TALLY_NAMESPACE", "TALLY_LOG_LEVEL")
    assert settings.report.is_known("TALLY_NAMESPACE")


def test_settings_of_a_broken_file_are_not_known(give: Give) -> None:
    """Only those of the environment are what was meant."""
    Path(".env").write_text("TALLY_NAMESPACE='a\n")
    give(REDIS_URL="redis://localhost")
    report = load(FOLLOW, checks_later=True).report

    assert report.is_known("REDIS_URL")
    assert not report.is_known("REDIS_URL", "TALLY_NAMESPACE")


def test_without_unknown_variables_there_is_no_entry() -> None:
    """``tests/commands/test_config.py`` has the entry where there are some."""
    with capture_logs() as entries:
        warn_of_unknown(load(CONFIG))

    assert entries == []


@pytest.mark.parametrize(
    ("address", "token", "sentence"),
    [
        ("off", None, "TALLY_API is on, but TALLY_HTTP is off: set an address"),
        ("0.0.0.0:8080", None, "TALLY_API is on at 0.0.0.0:8080, which other machines may reach"),
        ("[::]:8080", None, "TALLY_API is on at [::]:8080, which other machines may reach"),
        ("tally.test:80", None, "TALLY_API is on at tally.test:80, which other machines may reach"),
        ("127.0.0.1.test:80", None, "TALLY_API is on at 127.0.0.1.test:80, which other machines"),
        ("127.0.0.1:8080", None, ""),
        ("127.1.2.3:8080", None, ""),
        ("[::1]:8080", None, ""),
        ("localhost:8080", None, ""),
        (":8080", None, ""),
        ("0.0.0.0:8080", "a-canary-of-a-token", ""),
    ],
)
def test_an_api_that_others_reach_needs_a_token(
    give: Give, address: str, token: str | None, sentence: str
) -> None:
    """The sentence says how to make one. Where the API is off, nothing is asked for."""
    give(TALLY_HTTP=address, **({"TALLY_API_TOKEN": token} if token else {}))
    load(CONFIG)

    give(TALLY_API="on")
    if not sentence:
        assert load(CONFIG).api
        return
    (line,) = refused()
    assert line.startswith(sentence)
    assert "openssl rand -hex 32" in line or address == "off"
