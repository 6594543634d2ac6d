"""All that is wrong with the settings is told at once, each by its name and its source, whatever command asks."""

from pathlib import Path

import pytest
from structlog.testing import capture_logs

from worker.errors import ConfigurationError
from worker.settings import FIELDS, SECRETS, Settings
from worker.settings.checks import (
    CONNECTS,
    COUNTED,
    FOLLOW,
    FOLLOWED,
    REDIS_ONLY,
    SHOW,
    Needs,
    demand,
    load,
    load_usable,
    warn_of_unknown,
)
from worker.settings.masked import as_json, as_lines, in_force, masked_address

CANARY = "canary"


def refused(purpose: Needs) -> list[str]:
    """Return the lines that tell what is wrong."""
    with pytest.raises(ConfigurationError) as error:
        load(purpose)
    head, *lines = str(error.value).splitlines()
    assert head == "These settings are wrong:"
    assert CANARY not in str(error.value)
    return [line.strip() for line in lines]


WRONG = {
    "PUBNUB_SECRET_KEY": "sec-c-canary",
    "PUBNUB_USER_ID": " ",
    "REDIS_URL": "canary",
    "TALLY_CHANNELS": "a/b,c:d,room",
    "TALLY_CHANNEL_GROUPS": "e.*",
    "TALLY_TYPES": "edited",
    "TALLY_NAMESPACE": "a b",
    "TALLY_TOMBSTONE_SECONDS": "30",
    "TALLY_HISTORY_RATE": "fast",
}
TOLD = (
    "PUBNUB_SECRET_KEY needs PUBNUB_PUBLISH_KEY: requests are signed with both. ({})",
    "PUBNUB_USER_ID is empty: give this worker a user id. ({})",
    "REDIS_URL must begin with one of redis://, rediss://, unix://. Leave it unset for an embedded Valkey. ({})",
    "The channel name 'a/b' has '/' in it; PubNub takes no comma, colon, ",
    "The channel name 'c:d' has ':' in it; PubNub takes no comma, colon, ",
    "The channel name 'e.*' has '*' in it; PubNub takes no comma, colon, ",
    (
        "Nothing would be counted: TALLY_IGNORED_TYPES (deleted,edited,threadRootId) has every type of TALLY_TYPES "
        "(edited). Change one of them. (TALLY_TYPES: {})"
    ),
    "TALLY_NAMESPACE is 'a b': use letters, digits, '_', '.' and '-' only, at least one. ({})",
    (
        "TALLY_TOMBSTONE_SECONDS (30) must be more than TALLY_SETTLE_SECONDS (60): a removal must outlive what may "
        "arrive late. ({})"
    ),
    "TALLY_HISTORY_RATE: Input should be a valid number, unable to parse string as a number. ({})",
)


def test_everything_wrong_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """By itself, together, for Redis and for PubNub: a line each."""
    for name, value in WRONG.items():
        monkeypatch.setenv(name, value)
    lines = refused(SHOW)

    assert len(lines) == len(TOLD)
    for line, words in zip(lines, TOLD, strict=True):
        assert line.startswith(words.format("environment"))
    assert lines[3].endswith("(TALLY_CHANNELS: environment)")
    assert lines[5].endswith("(TALLY_CHANNEL_GROUPS: environment)")
    missing, *others = refused(CONNECTS)
    assert missing.startswith("PUBNUB_SUBSCRIBE_KEY is not set. Copy")
    assert others == lines


def test_each_source_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The environment, .env, and the paths of files."""
    listed, url = tmp_path / "channels", tmp_path / "url"
    listed.write_text("room\ncanary/\n")
    url.write_text("canary\n")
    (tmp_path / ".env").write_text(f"TALLY_NAMESPACE=a b\nREDIS_URL_FILE={url}\nTALLY_HTTP=x:y\n")
    monkeypatch.setenv("TALLY_CHANNELS_FILE", str(listed))
    address, channels, namespace, http = refused(SHOW)

    assert address.endswith(f"(file {url})")
    assert channels.startswith(
        f"TALLY_CHANNELS_FILE: the file {listed}, line 2: no name PubNub takes"
    )
    assert channels.endswith("(environment)")
    assert namespace.endswith("(.env)")
    assert http == "TALLY_HTTP: the port 'y' is no number from 0 to 65535. (.env)"


def test_a_dotenv_that_is_no_text_hides_nothing_else(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What the environment says is looked at all the same."""
    (tmp_path / ".env").write_bytes(b"TALLY_CHANNELS=canary\xff\xfe")
    monkeypatch.setenv("TALLY_NAMESPACE", "a b")
    assert refused(SHOW) == [
        f"The file is not UTF-8 text. (.env: {tmp_path / '.env'})",
        "TALLY_NAMESPACE is 'a b': use letters, digits, '_', '.' and '-' only, at least one. (environment)",
    ]


def test_what_is_wrong_by_itself_is_not_told_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor held against another setting, nor taken for missing."""
    monkeypatch.setenv("TALLY_SETTLE_SECONDS", "soon")
    monkeypatch.setenv("TALLY_TOMBSTONE_SECONDS", "30")
    monkeypatch.setenv("TALLY_CHANNELS_FILE", "/nowhere/at/all")
    monkeypatch.setenv("PUBNUB_SUBSCRIBE_KEY_FILE", "/nowhere/at/all")
    monkeypatch.setenv("PUBNUB_SECRET_KEY", "sec-c-1")
    monkeypatch.setenv("PUBNUB_PUBLISH_KEY", "pub c")
    words = [line.split()[0] for line in refused(FOLLOW)]
    assert words == [
        "PUBNUB_SUBSCRIBE_KEY_FILE:",
        "PUBNUB_PUBLISH_KEY:",
        "TALLY_CHANNELS_FILE:",
        "TALLY_SETTLE_SECONDS:",
    ]


def test_a_worker_needs_something_to_follow(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Channels, or groups, or a list that has some; other commands go over what was ever seen."""
    monkeypatch.setenv("PUBNUB_SUBSCRIBE_KEY", "demo")
    load(CONNECTS)
    (listed := tmp_path / "channels").write_text("# none yet\n")
    monkeypatch.setenv("TALLY_CHANNELS_FILE", str(listed))
    (line,) = refused(FOLLOW)
    assert line.startswith("Nothing to follow: set TALLY_CHANNELS or TALLY_CHANNEL_GROUPS.")
    assert f"The file {listed} lists none." in line

    listed.write_text("room\n")
    assert load(FOLLOW).all_channels() == ("room",)


def test_a_slip_is_told_with_what_is_missing_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """To who runs a worker, and to who asks the doctor."""
    monkeypatch.setenv("PUBNUB_SUBSCRIBE_KEY", "demo")
    monkeypatch.setenv("TALLY_CHANELS", CANARY)
    missing, slip = refused(FOLLOW)
    assert missing.startswith("Nothing to follow: set TALLY_CHANNELS")
    assert slip == "TALLY_CHANELS (environment) is no setting; is TALLY_CHANNELS meant?"

    with pytest.raises(ConfigurationError, match=r"Nothing to follow.* is TALLY_CHANNELS meant\?$"):
        demand(load_usable(FOLLOW), FOLLOWED)


def test_who_only_reads_is_not_stopped_by_what_it_does_not_use(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The address of Redis and the namespace are all it uses; those it is told of together."""
    for name, value in {**WRONG, "PUBNUB_AUTH_TOKEN_FILE": "/nowhere/at/all"}.items():
        monkeypatch.setenv(name, value)
    assert [line.split()[0] for line in refused(REDIS_ONLY)] == ["REDIS_URL", "TALLY_NAMESPACE"]

    monkeypatch.setenv("REDIS_URL", "redis://localhost")
    monkeypatch.setenv("TALLY_NAMESPACE", "fine")
    assert load(REDIS_ONLY).namespace == "fine"


def test_a_doctor_goes_on_where_each_is_right_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """And tells everything together later; what is wrong by itself ends it, with everything else that is wrong."""
    monkeypatch.setenv("TALLY_NAMESPACE", "a b")
    monkeypatch.setenv("TALLY_TYPES", "edited")
    settings = load_usable(FOLLOW)
    with pytest.raises(ConfigurationError) as error:
        demand(settings, COUNTED)
    for words in (
        "TALLY_NAMESPACE is",
        "Nothing would be counted",
        "Nothing to follow",
        "PUBNUB_SUBSCRIBE_KEY is not",
    ):
        assert words in str(error.value)

    monkeypatch.setenv("TALLY_LOG_LEVEL", "loud")
    with pytest.raises(
        ConfigurationError, match=r"(?s)Nothing would be counted.*TALLY_NAMESPACE.*TALLY_LOG_LEVEL"
    ):
        load_usable(FOLLOW)


def test_slips_are_logged_once_without_their_values(monkeypatch: pytest.MonkeyPatch) -> None:
    """One entry for all, none where there are none."""
    with capture_logs() as silence:
        warn_of_unknown(load(SHOW))
    for name in ("TALLY_CHANELS", "PUBNUB_ORIGN"):
        monkeypatch.setenv(name, CANARY)
    with capture_logs() as logs:
        warn_of_unknown(load(SHOW))

    assert silence == []
    (entry,) = logs
    assert (entry["event"], entry["log_level"]) == ("unknown_settings", "warning")
    assert "is PUBNUB_ORIGIN meant?; TALLY_CHANELS (environment) is no setting" in entry["settings"]
    assert CANARY not in str(entry)


# --- what is shown ----------------------------------------------------------------------------------------------------


def test_every_setting_in_force_is_told_as_one_would_write_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In the documentation's order, so that it could be read back."""
    values = {
        "PUBNUB_TLS": "false",
        "TALLY_CHANNELS": "a,b.*",
        "TALLY_SETTLE_SECONDS": "0.5",
        "TALLY_RECONCILE_FULL_SECONDS": "1209600",
        "TALLY_HTTP": "off",
    }
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    told = {each.name: each for each in in_force(load(SHOW))}

    assert list(told) == list(FIELDS)
    assert {name: told[name].value for name in values} == values
    assert {each.source for each in told.values()} == {"environment", "default"}
    assert {name for name, each in told.items() if each.secret} == set(SECRETS)
    for name, each in told.items():
        if each.value is not None:
            monkeypatch.setenv(name, each.value)
    assert load(SHOW).model_dump() == Settings.model_validate(values).model_dump()


def test_of_secrets_only_the_length_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of an address everything but its password; None of what is not set."""
    monkeypatch.setenv("PUBNUB_AUTH_TOKEN", "canary-canary-canary-can")
    monkeypatch.setenv("REDIS_URL", "redis://worker:canary@cache:6379/1?socket_timeout=2")
    told = {each.name: each.value for each in in_force(load(SHOW))}
    assert told["PUBNUB_AUTH_TOKEN"] == "set, 24 characters"
    assert told["REDIS_URL"] == "redis://worker:***@cache:6379/1?socket_timeout=2"
    assert told["PUBNUB_SECRET_KEY"] is None


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("redis://localhost:6379/0", "redis://localhost:6379/0"),
        ("rediss://:canary@[::1]:6379", "rediss://:***@[::1]:6379"),
        ("redis://worker:can@ary@h/0", "redis://worker:***@h/0"),
        ("redis://canary@h/0", "redis://***@h/0"),
        ("redis://canary:@h/0", "redis://***@h/0"),
        ("unix://worker:canary@/run/redis.sock?db=1", "unix://worker:***@/run/redis.sock?db=1"),
        ("redis://h?password=canary&db=2&username=canary", "redis://h?password=***&db=2&***"),
        ("redis://h?ssl_ca_certs=/a;password=canary", "redis://h?***"),
        ("redis://h?canary", "redis://h?***"),
        ("redis://user:12/canary@h:6379", None),
        ("redis://user:12?canary@h:6379", None),
        ("redis://user:12#canary@h:6379", None),
        ("redis://canary/word", None),
        ("unix:///run/canary@redis", None),
    ],
)
def test_no_part_of_an_address_that_may_be_a_secret_is_shown(
    address: str, shown: str | None
) -> None:
    """Where a password was not encoded, it stands where a host, a path or an option would."""
    assert masked_address(address) == shown


def test_lines_hold_nothing_a_terminal_obeys(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Values, paths, and names of variables."""
    (hostile := tmp_path / "a\x1b[31mb").write_text("key")
    monkeypatch.setenv("PUBNUB_SECRET_KEY_FILE", str(hostile))
    monkeypatch.setenv("PUBNUB_PUBLISH_KEY", "pub")
    monkeypatch.setenv("TALLY_TYPES", "a\x1b]0;b\x07")
    monkeypatch.setenv("TALLY_\x1b[2J", "x")
    settings = load(SHOW)
    text = "".join(as_lines(settings))

    assert text.isprintable()
    assert "a\\x1b[31mb" in text
    assert "warning: TALLY_\\x1b[2J (environment) is no setting" in text
    (unknown,) = as_json(settings)["unknown"]
    assert unknown == {"name": "TALLY_\x1b[2J", "source": "environment", "nearest": None}
