"""A wrong setting or argument is one sentence that says what to do, never a traceback."""

import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pytest
import structlog
from rich.console import Console
from rich.progress import Progress

from tests.redis_server import RedisServer
from worker.cli.main import main
from worker.cli.progress import ChannelLines, columns
from worker.store.progress import Progress as BackfillProgress

UNSET = None
NOTHING_LISTENS = "127.0.0.1:1"


@dataclass(frozen=True)
class Ended:
    """The exit code of a command, and its output and errors."""

    code: object
    output: str


class Tally(Protocol):
    """Runs a command in this process, with these settings; one of None is unset."""

    def __call__(self, *line: str, **settings: str | None) -> Ended:
        """Return its exit code and output."""


@pytest.fixture
def tally(
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    valkey: RedisServer,
    tmp_path: Path,
) -> Iterator[Tally]:
    """The command line, in an empty folder, with correct settings."""
    monkeypatch.chdir(tmp_path)
    for name in os.environ:
        if name.startswith(("PUBNUB_", "TALLY_", "REDIS_")):
            monkeypatch.delenv(name)
    correct = {
        "PUBNUB_SUBSCRIBE_KEY": "demo",
        "PUBNUB_ORIGIN": NOTHING_LISTENS,
        "PUBNUB_TLS": "false",
        "REDIS_URL": valkey.url,
        "TALLY_CHANNELS": "room",
        "TALLY_NAMESPACE": "command-line",
    }

    def run(*line: str, **settings: str | None) -> Ended:
        wanted: dict[str, str | None] = {**correct, **settings}
        for name, value in wanted.items():
            if value is not None:
                monkeypatch.setenv(name, value)
        monkeypatch.setattr("sys.argv", ["tally", *line])
        with pytest.raises(SystemExit) as ended:
            main()
        output = "".join(capfd.readouterr())
        assert "Traceback" not in output
        return Ended(ended.value.code, output)

    yield run
    structlog.reset_defaults()


@pytest.mark.parametrize(
    ("settings", "code", "sentences"),
    [
        ({"PUBNUB_SUBSCRIBE_KEY": UNSET}, 2, ["PUBNUB_SUBSCRIBE_KEY is not set. Copy"]),
        (
            {"PUBNUB_SUBSCRIBE_KEY": "sub c/x"},
            2,
            ["PUBNUB_SUBSCRIBE_KEY: a key has only letters, digits"],
        ),
        (
            {"TALLY_CHANNELS": ""},
            2,
            ["Nothing to follow: set TALLY_CHANNELS or TALLY_CHANNEL_GROUPS."],
        ),
        ({"TALLY_CHANNELS": "room,.."}, 2, ["'..'", "use another name"]),
        (
            {"TALLY_CHANNELS": "x" * 93},
            2,
            ["'xxxxxxxxxxxxxxxxxxxx'… has 93 characters; PubNub takes 92"],
        ),
        ({"TALLY_CHANNELS": "a\x1b[31mb"}, 2, ["'a\\x1b[31mb' has '\\x1b' in it"]),
        (
            {"TALLY_CHANNELS": "a.b.c.*"},
            2,
            ["The wildcard 'a.b.c.*' is not of the form a.* or a.b.*"],
        ),
        ({"TALLY_CHANNEL_GROUPS": "a/b"}, 2, ["'a/b' has '/' in it"]),
        ({"REDIS_URL": f"redis://{NOTHING_LISTENS}"}, 4, ["Redis does not answer"]),
        (
            {"REDIS_URL": "http://localhost"},
            2,
            ["REDIS_URL must begin with one of redis://, rediss://, unix://"],
        ),
        ({"REDIS_URL": "redis://localhost:port"}, 2, ["REDIS_URL cannot be read"]),
        ({"REDIS_URL": "redis://[localhost"}, 2, ["REDIS_URL cannot be read"]),
        ({"REDIS_URL": "redis://localhost?colour=blue"}, 2, ["REDIS_URL cannot be read"]),
        ({"REDIS_URL": "rediss://localhost?ssl_cert_reqs=canary"}, 2, ["REDIS_URL cannot be read"]),
        ({"REDIS_URL": "redis://localhost?protocol=9"}, 2, ["REDIS_URL cannot be read"]),
        ({"TALLY_NAMESPACE": "a b"}, 2, ["TALLY_NAMESPACE is 'a b': use letters"]),
        ({"PUBNUB_SECRET_KEY": "sec-c-x"}, 2, ["PUBNUB_SECRET_KEY needs PUBNUB_PUBLISH_KEY"]),
        (
            {"TALLY_TYPES": "edited"},
            2,
            ["Nothing would be counted: TALLY_IGNORED_TYPES", "TALLY_TYPES (edited)"],
        ),
        (
            {
                "TALLY_LOG_LEVEL": "loud",
                "TALLY_SETTLE_SECONDS": "soon",
                "PUBNUB_ORIGIN": "https://x/y",
            },
            2,
            [
                "TALLY_LOG_LEVEL: Input should be 'debug', 'info', 'warning' or 'error'.",
                "TALLY_SETTLE_SECONDS: Input should be a valid number",
                "PUBNUB_ORIGIN: give a host name, and a port if need be",
            ],
        ),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_a_wrong_setting_is_named(
    tally: Tally, settings: dict[str, str | None], code: int, sentences: list[str]
) -> None:
    """All wrong settings at once, each with what it may be."""
    ended = tally("run", **settings)

    assert ended.code == code, ended.output
    for sentence in sentences:
        assert sentence in ended.output


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (("fly",), "fly"),
        (("run", "--fast"), "--fast"),
        (("show", "room", "now"), "MESSAGE_TIMETOKEN is 'now'; it has only digits."),
        (("show", "a:b", "1"), "'a:b' has ':' in it"),
        (("explain", "room", "now"), "MESSAGE_TIMETOKEN is 'now'; it has only digits."),
        (("explain", "a:b", "1"), "'a:b' has ':' in it"),
        (("backfill", ".."), "'..'"),
        (
            ("backfill", "--since", "soon"),
            "--since is 'soon'; give a timetoken of 17 digits, a date",
        ),
        (("backfill", "--since", "1760000000"), "--since is '1760000000'; give a timetoken"),
        (("backfill", "--until", "7x"), "--until is '7x'; give a timetoken"),
        (("backfill", "--since", "9999999999d"), "--since is '9999999999d'; give a timetoken"),
        (("backfill", "--since", "1d", "--until", "7d"), "--since 1d is not before --until 7d"),
        (
            ("backfill", "--since", "2026-01-31", "--until", "2026-01-31"),
            "there is nothing between them",
        ),
        (("emulator", "--fault", "gravity=1"), "'gravity=1': no such fault. There are: ahead,"),
        (("emulator", "--fault", "late=2"), "'late=2': the rate is a number from 0 to 1"),
        (("demo", "--fault", "late"), "'late': the rate is a number from 0 to 1"),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_a_wrong_argument_is_named(tally: Tally, line: tuple[str, ...], words: str) -> None:
    """With exit code 2."""
    ended = tally(*line)

    assert ended.code == 2, ended.output
    assert words in ended.output


def test_a_message_without_reactions_is_no_error(tally: Tally) -> None:
    """Nor is the help."""
    assert tally("show", "room", "17600000001728660").output == "No reactions.\n"
    assert tally("--help").code == 0


def test_a_doctor_names_what_is_wrong(tally: Tally) -> None:
    """PubNub does not answer: exit code 3, and Redis is examined all the same."""
    ended = tally("doctor")

    assert ended.code == 3
    assert (
        "ok   Configuration: complete; counts all types but deleted,edited,threadRootId"
        in ended.output
    )
    assert "BAD  PubNub: PubNub, time: no connection." in ended.output
    assert "ok   Redis: namespace 'command-line' is free" in ended.output


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"PUBNUB_SECRET_KEY": "sec-c-x"}, "PUBNUB_SECRET_KEY needs PUBNUB_PUBLISH_KEY"),
        ({"PUBNUB_USER_ID": " "}, "PUBNUB_USER_ID is empty"),
        ({"TALLY_TYPES": "edited,deleted"}, "Nothing would be counted"),
        ({"TALLY_CHANNELS": "a/b"}, "'a/b' has '/' in it"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_a_doctor_examines_redis_whatever_the_configuration(
    tally: Tally, settings: dict[str, str | None], sentence: str
) -> None:
    """A wrong configuration is one line, and the exit code."""
    ended = tally("doctor", **settings)

    assert ended.code == 2, ended.output
    assert f"BAD  Configuration: {sentence}" in ended.output.replace("The channel name ", "")
    assert "ok   Redis: answers" in ended.output
    assert "ok   Redis: namespace 'command-line' is free" in ended.output


def test_a_backfill_that_counts_no_type_is_refused(tally: Tally) -> None:
    """Before it claims the namespace."""
    ended = tally("backfill", TALLY_TYPES="edited")

    assert ended.code == 2, ended.output
    assert "TALLY_IGNORED_TYPES" in ended.output
    assert "namespace 'command-line' is free" in tally("doctor", TALLY_TYPES=UNSET).output


def test_progress_shows_actions_rate_and_date() -> None:
    """The rate leaves out what an interrupted run had read."""
    now = 0.0
    console = Console(file=io.StringIO(), width=120)
    display = Progress(*columns(), console=console, get_time=lambda: now)
    lines = ChannelLines(display)

    for actions in (300, 400, 500):
        place = BackfillProgress("17700000000000000", "17000000000000000", actions=actions)
        lines.reach("room[red]\x1b", place)
        now += 2
    with console.capture() as shown:
        console.print(display)

    assert "room[red]\\x1b 500 actions, 50/s back to 2023-11-14 22:13" in shown.get()
