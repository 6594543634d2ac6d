"""What commands leave in Redis: a mark after a part, nothing after reading."""

import asyncio
import re
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from redis.asyncio import Redis

from tests.bench.bench import KEYS, Bench
from tests.bench.comparison import MESSAGE
from tests.bench.in_process import Commands
from tests.redis_server import Forwarder, RedisServer
from tests.source.scripted import SUBSCRIBE_KEY, ScriptedPubNub, json_reply
from worker.domain.position import TICKS_PER_SECOND, Range, shift
from worker.emulator import Page, Window
from worker.reconciliation.report import ReconcileOptions
from worker.service import commands
from worker.service.doctor import Deadline, examine_pubnub
from worker.settings import Settings
from worker.settings.checks import CONFIG, load
from worker.source.client import Client, Keyset
from worker.source.names import Names
from worker.store.connection import connect
from worker.store.pending_repairs import GapCause
from worker.telemetry import metrics

DAY = 86400 * TICKS_PER_SECOND

Command = Callable[[Settings, list[str]], Coroutine[Any, Any, object]]
Configure = Callable[..., Settings]


BRIEFLY = {"TALLY_SETTLE_SECONDS": "0.1"}
"""For commands that only read: they wait no longer between their passes."""


def settings_for(bench: Bench, redis_url: str) -> dict[str, str]:
    """Return settings for a Redis at an address, and the bench's PubNub."""
    return {
        "PUBNUB_SUBSCRIBE_KEY": SUBSCRIBE_KEY,
        "PUBNUB_ORIGIN": bench.emulator.origin,
        "PUBNUB_TLS": "false",
        "REDIS_URL": redis_url,
        "TALLY_CHANNELS": "room,hall",
    }


@pytest.fixture
def configured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, bench: Bench) -> Configure:
    """Return settings as a command reads them."""
    monkeypatch.chdir(tmp_path)

    def configure(redis_url: str, **more: str) -> Settings:
        for name, value in {**settings_for(bench, redis_url), **more}.items():
            monkeypatch.setenv(name, value)
        return load(CONFIG)

    return configure


@pytest.fixture(scope="module")
def other() -> Iterator[RedisServer]:
    """Start a second server."""
    server = RedisServer()
    yield server
    server.stop()


async def a_reconcile(settings: Settings, channels: list[str], wanted: Range) -> None:
    """Do as ``tally reconcile`` does."""
    await commands.run_reconcile(settings, channels, wanted, ReconcileOptions(), None)


async def a_backfill(settings: Settings, channels: list[str], wanted: Range) -> None:
    """Do as ``tally backfill`` does."""
    await commands.run_backfill(settings, channels, wanted, None)


@pytest.mark.parametrize("command", [a_reconcile, a_backfill])
@pytest.mark.parametrize("is_met", [False, True])
async def test_a_new_channel_seen_in_part_is_owed(
    bench: Bench,
    configured: Configure,
    valkey: RedisServer,
    command: Callable[[Settings, list[str], Range], Coroutine[Any, Any, None]],
    is_met: bool,
) -> None:
    """Otherwise a worker would take it for known.

    A channel that is known, or read as a whole, gets no mark.
    """
    settings = configured(valkey.url)
    for channel in ("news.a", "news.b"):
        bench.emulator.state.add(channel, MESSAGE, "reaction", "👍", "ana", published=False)
    if is_met:
        await bench.tables.channels.add(["news.a"])

    await command(settings, ["news.a"], Range(shift(await bench.client.time(), -DAY)))
    assert set(await bench.tables.pending.read("news.a")) == (
        set() if is_met else {GapCause.NEW_CHANNEL}
    )
    assert "news.a" in await bench.tables.channels.all()

    await command(settings, ["news.b"], Range())
    assert await bench.tables.pending.read("news.b") == {}
    assert "news.b" in await bench.tables.channels.all()


async def a_verify(settings: Settings, channels: list[str]) -> object:
    """Do as ``tally verify`` does."""
    return await commands.run_verify(settings, channels, 1, None)


async def a_dry_run(settings: Settings, channels: list[str]) -> object:
    """Do as ``tally reconcile --dry-run`` does."""
    return await commands.run_reconcile(
        settings, channels, Range(), ReconcileOptions(dry_run=True), None
    )


def at_the_second_pass(
    bench: Bench, act: Callable[[], Coroutine[Any, Any, None]]
) -> list[asyncio.Task[None]]:
    """Call ``act`` when a list is requested again that was read to its end.

    Return where its task will be.
    """
    ever, is_read, acts = bench.emulator.state.page, False, list[asyncio.Task[None]]()

    def page(channel: str, window: Window) -> Page:
        nonlocal is_read
        if is_read and not acts:
            acts.append(asyncio.create_task(act()))
        made = ever(channel, window)
        is_read = is_read or not made.actions
        return made

    cast("Any", bench.emulator.state).page = page
    return acts


@pytest.mark.parametrize("command", [a_verify, a_dry_run])
async def test_a_reading_command_writes_to_no_server(
    bench: Bench,
    configured: Configure,
    valkey: RedisServer,
    other: RedisServer,
    command: Command,
) -> None:
    """Redis is replaced while the command waits for its second pass.

    Only the request budget may be written.
    """
    bench.emulator.state.add("room", MESSAGE, "reaction", "👍", "ana")
    bench.emulator.state.advance(1000)
    async with connect(other.url) as second, Forwarder(valkey.port) as door:
        await second.flushall()
        replaced = at_the_second_pass(bench, lambda: door.switch(other.port))

        await command(configured(door.url, **BRIEFLY), ["room"])

        await replaced[0]
        for redis in (bench.redis, second):
            assert await keys(redis) <= {KEYS.budget}


@pytest.mark.parametrize("command", [a_reconcile, a_backfill])
async def test_a_slip_that_is_interrupted_leaves_nothing(
    bench: Bench,
    configured: Configure,
    valkey: RedisServer,
    command: Callable[[Settings, list[str], Range], Coroutine[Any, Any, None]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Ctrl-C while PubNub's first answer is awaited."""
    asked = asyncio.Event()

    async def never(*_: object, **__: object) -> Page:
        asked.set()
        return await asyncio.Future[Page]()

    monkeypatch.setattr(Client, "message_actions", never)
    work = asyncio.create_task(command(configured(valkey.url), ["typo"], Range()))
    await asked.wait()
    work.cancel()
    await asyncio.gather(work, return_exceptions=True)

    assert await keys(bench.redis) <= {KEYS.meta, KEYS.budget}


@pytest.mark.parametrize(
    ("arguments", "is_whole"),
    [((), True), (("--sample", "0.99"), False), (("room", "hall"), False)],
)
async def test_only_a_whole_verify_sets_its_metric(
    bench: Bench, valkey: RedisServer, tmp_path: Path, arguments: tuple[str, ...], is_whole: bool
) -> None:
    """A sample, or a choice of channels, must not silence the alert on an overdue verify."""
    figures = tmp_path / "verify.prom"
    commands = Commands(tmp_path, {**settings_for(bench, valkey.url), **BRIEFLY})
    metrics.verified.set(0)  # as at the start of a process

    ended = await commands.do("verify", *arguments, "--metrics-file", str(figures))

    assert ended.code == 0, ended
    (at,) = re.findall(
        r"^tally_verified_timestamp_seconds (\S+)$", figures.read_text(), re.MULTILINE
    )
    assert (float(at) > 0) is is_whole


async def test_a_doctor_names_refused_channels(bench: Bench) -> None:
    """It asks for all names of a worker, and reports only refused ones."""
    bench.emulator.state.refuse(["bad", "worse", "other"])
    followed = Names.of(["bad", "good", "worse"])
    findings = examine_pubnub(bench.client, followed, 1, lambda: 0.0, Deadline())
    checks = [finding async for finding in findings]

    assert [check.exit_code for check in checks] == [0, 3, 3]
    assert "Refused: 'bad', 'worse'. Grant 'read'" in checks[1].text


@pytest.mark.parametrize("words", ["Token is expired.", "Signature Does Not Match"])
async def test_a_doctor_gives_one_advice(words: str) -> None:
    """If PubNub's words tell the cause, no right is lacking."""
    async with ScriptedPubNub() as server:
        server.script(json_reply([17600000000000001]), json_reply({"message": words}, 403))
        keyset = Keyset(SUBSCRIBE_KEY, "tally", origin=server.origin, tls=False)
        async with Client(keyset) as client:
            findings = examine_pubnub(client, Names.of(["room"]), 1, lambda: 0.0, Deadline())
            checks = [finding async for finding in findings]

    assert [check.exit_code for check in checks] == [0, 3, 3]
    assert words.rstrip(".") in checks[1].text
    assert "Grant" not in checks[1].text


async def keys(redis: Redis) -> set[str]:
    """Return the names of all keys."""
    return set(await cast("Any", redis).keys("*"))
