"""The values of settings: what may stand there, and what is refused."""

import re
from pathlib import Path

import pytest

from tests.settings.given import CANARY, Give, refused
from worker.errors import ConfigurationError
from worker.settings import FIELDS, Settings
from worker.settings.checks import CONFIG, load
from worker.settings.files import MAX_BYTES
from worker.telemetry.address import Address


def value(name: str) -> object:
    """Return the value of a setting."""
    return getattr(load(CONFIG), FIELDS[name])


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("PUBNUB_SUBSCRIBE_KEY", "sub-c-1b2c3d", "sub-c-1b2c3d"),
        ("PUBNUB_ORIGIN", "[::1]:8090", "[::1]:8090"),
        ("PUBNUB_ORIGIN", "ps.pndsn.com.:65535", "ps.pndsn.com.:65535"),
        ("TALLY_CHANNELS", " a, b ,,c.* ", ("a", "b", "c.*")),
        ("TALLY_IGNORED_TYPES", "", ("edited", "deleted", "threadRootId")),
        ("TALLY_RECONCILE_SECONDS", "90", 90),
        ("TALLY_RECONCILE_SECONDS", " 60m ", 3600),
        ("TALLY_RECONCILE_WINDOW", "1.5h", 5400),
        ("TALLY_RECONCILE_FULL_SECONDS", "7d", 604800),
        ("TALLY_CATCHUP_SECONDS", "15m", 900),
        ("TALLY_SETTLE_SECONDS", "1m30s", 90),
        ("TALLY_TOMBSTONE_SECONDS", "1h30m", 5400),
        ("TALLY_TOMBSTONE_SECONDS", "1.1h", 3960),
        ("TALLY_JOURNAL_SECONDS", "2d", 172800),
        ("TALLY_DRAIN_SECONDS", " 20s ", 20),
        ("TALLY_RETENTION_DAYS", "30", 30),
        ("TALLY_RETENTION_DAYS", "30d", 30),
        ("TALLY_RETENTION_DAYS", " 36h ", 1.5),
        ("TALLY_PRUNE_LIMIT", " 12.5 % ", 12.5),
        ("TALLY_LOG_LEVEL", "DEBUG", "debug"),
        ("TALLY_LOG_FORMAT", "Json", "json"),
        ("TALLY_HTTP", "0.0.0.0:9000", Address("0.0.0.0", 9000)),  # noqa: S104 - nothing listens
        ("TALLY_HTTP", "localhost:0", Address("localhost", 0)),
        ("TALLY_HTTP", "[::1]:8080", Address("::1", 8080)),
        ("TALLY_HTTP", ":8081", Address("127.0.0.1", 8081)),
        ("TALLY_HTTP", " 65535 ", Address("127.0.0.1", 65535)),
        ("TALLY_HTTP", "OFF", None),
        ("TALLY_HTTP", "", Address("127.0.0.1", 8080)),
    ],
)
def test_text_becomes_a_value(give: Give, name: str, text: str, expected: object) -> None:
    """White space around it is no part of it; an empty text is no value."""
    give(**{name: text})
    assert value(name) == expected


KEY = "a key has only letters, digits, '-' and '_'"
ORIGIN = "give a host name"
WRONG_ADDRESSES = (
    *("localhost", "localhost:", "localhost:http", "localhost:-1", "localhost:65536"),
    *("localhost:٨٠", "65536", "::1:8080", "[::1", "[localhost]:80", "http://localhost:80", "*:80"),
)
WRONG_ORIGINS = (
    *(
        "ps.pndsn.com/v2",
        "ps..pndsn.com",
        ".",
        "-",
        ":8090",
        "host:",
        "::1",
        "[::1",
        "[]",
        "host:0",
    ),
    *("x" * 64 + ".test", ".".join(["x" * 63] * 4)),
)
WRONG_IPV6 = ("[1::2::3]", "[:]", "[1:2]", "[127.0.0.1]")
WRONG_TOKENS = ("short", "x" * 15, "with a space in it", "ünïcode-ünïcode-ünï", "x" * 1_025)
WRONG_WEB_ORIGINS = ("example.com", "https://a.example/", "https://a.example/x", "null", "ftp://a")
DURATIONS = [name for name in FIELDS if re.search("_(SECONDS|WINDOW)$", name)]
OUT = "is out of range, write"
ADDRESS = "give host:port, [::1]:port, :port, a port from 0 to 65535, or off"


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        *(("PUBNUB_SUBSCRIBE_KEY", key, KEY) for key in ("sub c", "sub/c", "sub-c-…", "a?b")),
        ("PUBNUB_ORIGIN", "https://ps.pndsn.com", ORIGIN),
        *(("PUBNUB_ORIGIN", text, ORIGIN) for text in WRONG_ORIGINS),
        ("PUBNUB_ORIGIN", "host:99999", "there is no port 99999; give one from 1 to 65535"),
        *(("PUBNUB_ORIGIN", text, f"{text} is no IPv6 address") for text in WRONG_IPV6),
        ("PUBNUB_TLS", "maybe", "Input should be a valid boolean"),
        ("PUBNUB_USER_ID", "x" * 93, "String should have at most 92 characters"),
        ("TALLY_CATCHUP_SECONDS", "961", f"961 {OUT} more than 0 and at most 960 seconds. "),
        ("TALLY_CATCHUP_SECONDS", "0", f"0 {OUT} more than 0 and at most 960 seconds. "),
        ("TALLY_SETTLE_SECONDS", "1h30m", f"5400 {OUT} at least 0.1 and at most 600 seconds. "),
        ("TALLY_SETTLE_SECONDS", "0.09", f"0.09 {OUT} at least 0.1 and at most 600 seconds. "),
        ("TALLY_JOURNAL_SECONDS", "59", f"59 {OUT} at least 60 seconds. "),
        ("TALLY_RETENTION_DAYS", "36501", f"36501 {OUT} at least 0 and at most 36500 days. "),
        ("TALLY_HISTORY_RATE", "2e3", f"2000 {OUT} more than 0 and at most 1000 requests a second"),
        ("TALLY_PRUNE_LIMIT", "101%", f"101 {OUT} at least 0 and at most 100 per cent. "),
        ("TALLY_CHANNELS_PER_SUBSCRIPTION", "0", f"0 {OUT} at least 1 and at most 100. "),
        *((name, "7w", "give a time such as 90 (seconds), 90s, 15m, ") for name in DURATIONS),
        ("TALLY_TOMBSTONE_SECONDS", "1.5m1.5s", "1.5m1.5s is 91.5 s; give whole seconds"),
        ("TALLY_RETENTION_DAYS", "a month", "give days such as 30, or a time such as 30d or"),
        ("TALLY_LOG_FORMAT", "xml", "Input should be 'auto', 'json' or 'console'"),
        *(("TALLY_HTTP", text, ADDRESS) for text in WRONG_ADDRESSES),
        ("TALLY_API", "perhaps", "Input should be a valid boolean"),
        *(("TALLY_API_TOKEN", text, "a token has 16 to 1024") for text in WRONG_TOKENS),
        *(("TALLY_API_ORIGINS", text, "give origins as browsers") for text in WRONG_WEB_ORIGINS),
    ],
)
def test_wrong_values_are_refused_with_a_reason(
    give: Give, name: str, text: str, reason: str
) -> None:
    """The reason says what may stand there."""
    give(**{name: text})
    (line,) = refused()

    assert line.startswith(f"{name}: {reason}")
    assert line.endswith(f"({name}: environment)")


@pytest.mark.parametrize("text", ["[::1]:8080", "localhost:0"])
def test_an_address_is_shown_as_written(text: str) -> None:
    """IPv6 in brackets."""
    assert str(Settings.model_validate({"TALLY_HTTP": text}).http) == text


# --- the list of channels -----------------------------------------------------------------


def test_the_channel_list_is_read_again(give: Give, tmp_path: Path) -> None:
    """One a line or with commas between, from any editor; without blank lines and comments."""
    path = tmp_path / "channels"
    path.write_bytes("\ufeff# ours\r\nroom\r\n\n  hall , news.* ,\n  # not: cellar\nc#".encode())
    give(TALLY_CHANNELS="first,room", TALLY_CHANNELS_FILE=str(path))
    settings = load(CONFIG)
    assert settings.all_channels() == ("first", "room", "hall", "news.*", "c#")

    path.write_text("attic\n")
    assert settings.all_channels() == ("first", "room", "attic")

    path.write_text("")
    assert settings.all_channels() == ("first", "room")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"room\nca:nary\nhall\na.b.c.*\n", ", line 2, 4: no name PubNub takes"),
        (b"room # of canary\n", ", line 1: white space (U+0020 SPACE) in a name"),
        (b"room,canary/\x1b[31m\n", ", line 1: the invisible character U+001B"),
        (b"a:canary\n" * 99, ", line 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 and more: no name"),
        (b"canary\xff\n", " cannot be read: it is not UTF-8 text"),
        (b"canary" * (MAX_BYTES // 6 + 1), f" cannot be read: it is longer than {MAX_BYTES}"),
    ],
    ids=["names", "comment behind a name", "controls", "another file", "no text", "endless"],
)
def test_wrong_channel_lists_are_named_by_line(tmp_path: Path, content: bytes, reason: str) -> None:
    """The text is not quoted: a wrong path may lead to a secret."""
    path = tmp_path / "channels"
    path.write_bytes(content)
    settings = Settings.model_validate({"TALLY_CHANNELS_FILE": str(path)})

    with pytest.raises(ConfigurationError) as error:
        settings.all_channels()

    assert str(error.value).startswith(f"TALLY_CHANNELS_FILE: the file {path}{reason}")
    assert CANARY not in str(error.value)
