"""A wrong setting or argument is one sentence that says what to do, never a traceback."""

import io
from pathlib import Path

import pytest
from rich.console import Console
from rich.progress import Progress

from tests.bench.in_process import Commands
from tests.redis_server import RedisServer
from worker.cli.interrupts import finish
from worker.cli.progress import ChannelLines, columns
from worker.store.connection import EMBEDDED_FOLDER, connect
from worker.store.embedded import embedded_server
from worker.store.progress import Progress as BackfillProgress

NOTHING_LISTENS = "127.0.0.1:1"


@pytest.fixture
def tally(valkey: RedisServer, tmp_path: Path) -> Commands:
    """The command line, in an empty folder, with correct settings."""
    settings = {
        "PUBNUB_SUBSCRIBE_KEY": "demo",
        "PUBNUB_ORIGIN": NOTHING_LISTENS,
        "PUBNUB_TLS": "false",
        "REDIS_URL": valkey.url,
        "TALLY_CHANNELS": "room",
        "TALLY_NAMESPACE": "command-line",
    }
    return Commands(tmp_path, settings)


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("TALLY_CHANNELS", "room,..", "'..'"),
        ("TALLY_CHANNELS", "x" * 93, "'xxxxxxxxxxxxxxxxxxxx'… has 93 characters; PubNub takes 92"),
        ("TALLY_CHANNELS", "a\x1b[31mb", "TALLY_CHANNELS: the invisible character U+001B"),
        ("TALLY_CHANNELS", "a.b.c.*", "The wildcard 'a.b.c.*' is not of the form a.* or a.b.*"),
        ("TALLY_CHANNEL_GROUPS", "a/b", "'a/b' has '/' in it"),
        ("REDIS_URL", "redis://localhost:port", "REDIS_URL has a port that is no number"),
        ("REDIS_URL", "redis://[localhost", "REDIS_URL cannot be read"),
        ("REDIS_URL", "redis://localhost?colour=blue", "that cannot be used: colour. "),
        (
            "REDIS_URL",
            "rediss://localhost?ssl_cert_reqs=canary",
            "that cannot be used: ssl_cert_reqs. ",
        ),
        ("REDIS_URL", "redis://localhost?protocol=9", "that cannot be used: protocol. "),
        ("TALLY_LOG_LEVEL", "loud", "Input should be 'debug', 'info', 'warning' or 'error'."),
    ],
)
async def test_a_wrong_setting_is_named(
    tally: Commands, name: str, text: str, sentence: str
) -> None:
    """With what it may be, and exit code 2."""
    ended = await tally.do("run", **{name: text})

    assert ended.code == 2, ended.err
    assert sentence in ended.err
    assert "Traceback" not in ended.err


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("SSL_CERT_FILE", "/dev/null", "/dev/null cannot be read: it is not a file. Name a"),
        ("SSL_CERT_DIR", "/nowhere/at/all", "/nowhere/at/all is no folder."),
        ("HTTPS_PROXY", "socks5://canary@proxy:1", "HTTPS_PROXY names no proxy"),
    ],
)
async def test_a_wrong_way_to_pubnub_is_named(
    tally: Commands, monkeypatch: pytest.MonkeyPatch, name: str, text: str, words: str
) -> None:
    """With its variable and exit code 2, by the worker and by its doctor."""
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    variables = {"PUBNUB_TLS": "true", "PUBNUB_ORIGIN": "pubnub.test", name: text}
    for command in ("run", "doctor"):
        ended = await tally.do(command, **variables)

        assert ended.code == 2, ended.err
        for expected in (name, words):
            assert expected in ended.out + ended.err
        assert "Traceback" not in ended.err
        assert "canary" not in ended.out + ended.err


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("fly", "fly"),
        ("run --fast", "--fast"),
        ("show room now", "MESSAGE_TIMETOKEN is 'now'; it has only digits."),
        ("show a:b 1", "'a:b' has ':' in it"),
        ("top a:b", "'a:b' has ':' in it"),
        ("top --since soon", "--since is 'soon'; give a timetoken of 17 digits, a date"),
        ("top --limit 0", "--limit"),
        ("tail a:b", "'a:b' has ':' in it"),
        ("tail a.b.c.*", "'a.b.c.*' is not of the form a.* or a.b.*"),
        ("tail --since soon", "like 90 (seconds), 7d or 1h30m; or 'begin', or a position"),
        ("tail --count 0", "--count"),
        ("tail --json --format {value}", "--format and --json"),
        ("tail --format {chanel}", "'chanel' is no name of a change. The names are {time}, "),
        ("tail --format {value.__class__}", "'value.__class__' is no name of a change"),
        ("tail --format {value[0]}", "'value[0]' is no name of a change"),
        ("tail --format {count:>999999999}", "'count' has more than a name in its braces"),
        ("tail --format {value!r}", "'value' has more than a name in its braces"),
        ("tail --format {0}", "'0' is no name of a change"),
        ("tail --format {}", "'' is no name of a change"),
        ("tail --format {value", "--format cannot be used: expected '}'"),
        ("channels --limit 0", "--limit"),
        ("show room 1 --me \udcff", "--me is no text in UTF-8."),
        ("show room 1 --who \udcff", "--who is no text in UTF-8."),
        ("top --value \udcff", "--value is no text in UTF-8."),
        ("top --type \udcff", "--type is no text in UTF-8."),
        ("show \udcff 1", "in it; PubNub takes no"),
        ("explain room now", "MESSAGE_TIMETOKEN is 'now'; it has only digits."),
        ("explain a:b 1", "'a:b' has ':' in it"),
        ("backfill ..", "'..'"),
        ("backfill --since soon", "--since is 'soon'; give a timetoken of 17 digits, a date"),
        ("backfill --since 1760000000", "--since is '1760000000'; give a timetoken"),
        ("backfill --until 7x", "--until is '7x'; give a timetoken"),
        ("backfill --since 1h30", "or an age like 90 (seconds), 7d or 1h30m."),
        ("backfill --since 90 --until 1h30m", "--since 90 is not before --until 1h30m"),
        ("backfill --since 1760000000", "--since is '1760000000'; give a timetoken of"),
        ("backfill --since 20260131 --until 20260130", "--since 20260131 is not before"),
        ("backfill --since 30m --until 1h30m", "--since 30m is not before --until 1h30m"),
        ("demo --seconds 2x", "give a time such as 90"),
        ("demo --seconds 2h", "2h is not in the range from 1s to 1h"),
        ("demo --seconds 0", "0 is not in the range from 1s to 1h"),
        ("backfill --since 9999999999d", "--since is '9999999999d'; give a timetoken"),
        ("backfill --since 1d --until 7d", "--since 1d is not before --until 7d"),
        (
            "backfill --since 2026-01-31 --until 2026-01-31",
            "there is nothing between them",
        ),
        ("forget", "CHANNEL"),
        ("forget hall", "add --yes"),
        ("forget hall.* --yes", "hall.*"),
        ("reconcile --full --since 7d", "--full is everything; give it without --since"),
        ("emulator --fault gravity=1", "'gravity=1': no such fault. There are: ahead,"),
        ("emulator --fault late=2", "'late=2': the rate is a number from 0 to 1"),
        ("demo --fault late", "'late': the rate is a number from 0 to 1"),
    ],
)
async def test_a_wrong_argument_is_named(tally: Commands, line: str, words: str) -> None:
    """With exit code 2."""
    ended = await tally.do(*line.split())

    assert ended.code == 2, ended.err
    assert words in ended.err
    assert "Traceback" not in ended.err


async def test_a_message_without_reactions_is_no_error(
    tally: Commands, valkey: RedisServer
) -> None:
    """Nor is the help."""
    async with connect(valkey.url) as redis:
        await redis.hset("command-line-2:meta", "schema", "1")
        await redis.sadd("command-line-2:channels", "room")
    ended = await tally.do("show", "room", "1", TALLY_NAMESPACE="command-line-2")
    assert (ended.code, ended.out) == (0, "No reactions.\n")
    assert (await tally.do("--help")).code == 0


@pytest.mark.parametrize(
    "line", ["show room 1", "explain room 1", "top", "top room", "channels", "tail", "tail room"]
)
async def test_a_namespace_without_tallies_is_named(tally: Commands, line: str) -> None:
    """No empty answer: the address, the database or the namespace is another one."""
    ended = await tally.do(*line.split())

    assert (ended.code, ended.out) == (4, "")
    assert "holds no tallies in the namespace 'command-line'" in ended.err


@pytest.mark.parametrize(
    "line",
    [
        *("show room 1", "explain room 1", "top", "channels", "tail", "board"),
        *("verify room", "reconcile room --dry-run"),
        *("users export ana", "users forget ana --yes"),
    ],
)
async def test_without_an_address_nothing_is_started(tally: Commands, line: str) -> None:
    """In a folder where no worker ran, a command that needs tallies leaves nothing behind."""
    ended = await tally.do(*line.split(), REDIS_URL=None)

    assert (ended.code, ended.out) == (2, "")
    assert "REDIS_URL is not set. Set it in this terminal" in ended.err
    assert list(tally.folder.iterdir()) == []


async def test_an_embedded_server_is_read_beside_its_worker(tally: Commands) -> None:
    """Without an address, in the folder where the worker runs, and after it has ended."""
    folder = tally.folder / EMBEDDED_FOLDER
    async with embedded_server(folder) as url, connect(url) as redis:
        await redis.hset("command-line:meta", "schema", "1")
        await redis.sadd("command-line:channels", "room")
        beside = await tally.do("show", "room", "1", REDIS_URL=None)
    afterwards = await tally.do("show", "room", "1", REDIS_URL=None)

    assert (beside.code, beside.out) == (0, "No reactions.\n"), beside.err
    assert (afterwards.code, afterwards.out) == (0, "No reactions.\n"), afterwards.err


async def test_a_doctor_names_what_is_wrong(tally: Commands) -> None:
    """PubNub does not answer: exit code 3, and Redis is examined all the same."""
    ended = await tally.do("doctor")

    assert ended.code == 3
    for line in (
        "ok   Configuration: complete; counts all types but deleted,edited,threadRootId",
        "BAD  PubNub: PubNub at 127.0.0.1:1 does not answer: connection refused. Check",
        "ok   Redis: namespace 'command-line' is free",
    ):
        assert line in ended.out

    wrong = await tally.do("doctor", PUBNUB_SECRET_KEY="sec-c-x")
    assert wrong.code == 2
    assert "BAD  Configuration: PUBNUB_SECRET_KEY needs PUBNUB_PUBLISH_KEY" in wrong.out
    assert "ok   Redis: namespace 'command-line' is free" in wrong.out


async def test_a_backfill_that_counts_no_type_is_refused(tally: Commands) -> None:
    """Before it claims the namespace."""
    ended = await tally.do("backfill", TALLY_TYPES="edited")

    assert ended.code == 2, ended.err
    assert "TALLY_IGNORED_TYPES" in ended.err
    assert "namespace 'command-line' is free" in (await tally.do("doctor")).out


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


class Large:
    """A result that counts how often its repr is built."""

    built = 0

    def __repr__(self) -> str:
        self.built += 1
        return "Large()"


def test_no_repr_of_a_result_is_built() -> None:
    """Up to Python 3.12 ``asyncio.run`` alone builds one, when it restores its handler."""
    large = Large()

    async def work() -> Large:
        return large

    assert finish(work()) is large
    assert large.built == 0
