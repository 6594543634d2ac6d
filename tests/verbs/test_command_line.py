"""What is wrong with a setting or a command line is said in a sentence, with what to do; never a traceback."""

import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pytest
import structlog
from rich.console import Console

from tests.redis_server import RedisServer
from worker.cli.main import main
from worker.cli.progress import ChannelLines, progress_display
from worker.store.marks import Progress

UNSET = None
NOTHING_LISTENS = "127.0.0.1:1"


@dataclass(frozen=True)
class Ended:
    """How a command ended, and all it said."""

    code: object
    said: str


class Tally(Protocol):
    """Runs a command in this process, with settings of its own; one of None is left unset."""

    def __call__(self, *line: str, **settings: str | None) -> Ended:
        """Return how it ended."""


@pytest.fixture
def tally(
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    valkey: RedisServer,
    tmp_path: Path,
) -> Iterator[Tally]:
    """The command line, in an empty folder, with settings that are right."""
    monkeypatch.chdir(tmp_path)
    for name in os.environ:
        if name.startswith(("PUBNUB_", "TALLY_", "REDIS_")):
            monkeypatch.delenv(name)
    right = {
        "PUBNUB_SUBSCRIBE_KEY": "demo",
        "PUBNUB_ORIGIN": NOTHING_LISTENS,
        "PUBNUB_TLS": "false",
        "REDIS_URL": valkey.url,
        "TALLY_CHANNELS": "room",
        "TALLY_NAMESPACE": "command-line",
    }

    def run(*line: str, **settings: str | None) -> Ended:
        wanted: dict[str, str | None] = {**right, **settings}
        for name, value in wanted.items():
            if value is not None:
                monkeypatch.setenv(name, value)
        monkeypatch.setattr("sys.argv", ["tally", *line])
        with pytest.raises(SystemExit) as ended:
            main()
        told = capfd.readouterr()
        said = told.out + told.err
        assert "Traceback" not in said
        return Ended(ended.value.code, said)

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
    """A worker does not start: it says which setting is wrong and what may stand there, all at once."""
    ended = tally("run", **settings)

    assert ended.code == code, ended.said
    for sentence in sentences:
        assert sentence in ended.said


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
def test_a_wrong_command_line_is_explained(tally: Tally, line: tuple[str, ...], words: str) -> None:
    """Exit 2 for what no command knows, with the words that are wrong."""
    ended = tally(*line)

    assert ended.code == 2, ended.said
    assert words in ended.said


def test_a_command_says_what_it_did(tally: Tally) -> None:
    """Nothing is there yet, and help is."""
    assert tally("show", "room", "17600000001728660").said == "No reactions.\n"
    assert tally("--help").code == 0


def test_a_doctor_finds_what_is_wrong(tally: Tally) -> None:
    """PubNub out of reach: the line says so, the others are looked at all the same, exit 3."""
    ended = tally("doctor")

    assert ended.code == 3
    assert (
        "ok   Configuration: complete; counts all types but deleted,edited,threadRootId"
        in ended.said
    )
    assert "BAD  PubNub: PubNub, time: no connection." in ended.said
    assert "ok   Redis: namespace 'command-line' is free" in ended.said


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
def test_a_doctor_looks_at_redis_whatever_the_configuration(
    tally: Tally, settings: dict[str, str | None], sentence: str
) -> None:
    """What no worker could start with is a line of its own, and the exit code in the end."""
    ended = tally("doctor", **settings)

    assert ended.code == 2, ended.said
    assert f"BAD  Configuration: {sentence}" in ended.said.replace("The channel name ", "")
    assert "ok   Redis: answers" in ended.said
    assert "ok   Redis: namespace 'command-line' is free" in ended.said


def test_a_backfill_of_nothing_that_counts_is_refused(tally: Tally) -> None:
    """As a worker refuses it: its namespace is not claimed."""
    ended = tally("backfill", TALLY_TYPES="edited")

    assert ended.code == 2, ended.said
    assert "TALLY_IGNORED_TYPES" in ended.said
    assert "namespace 'command-line' is free" in tally("doctor", TALLY_TYPES=UNSET).said


def test_progress_shows_actions_rate_and_date() -> None:
    """Of each channel; what an interrupted run has read is no work of this one."""
    now = 0.0
    console = Console(file=io.StringIO(), width=120)
    display = progress_display(console)
    lines = ChannelLines(display, lambda: now)

    lines.reach("room[red]\x1b", Progress("17700000000000000", "17600000000000000", actions=300))
    now = 2.0
    lines.reach("room[red]\x1b", Progress("17700000000000000", "17000000000000000", actions=500))
    with console.capture() as shown:
        console.print(display)

    assert "room[red]\\x1b 500 actions, 100/s back to 2023-11-14 22:13" in shown.get()
