"""Users choose channels, types, values and names: no command gives their text a line of its own."""

import asyncio
import json
from pathlib import Path
from typing import Final

import pytest
from aiohttp import web
from redis.asyncio import Redis

from tests.bench.hostile import (
    FAKE,
    FOLLOWED,
    GROUP,
    LONGEST_LINE,
    MESSAGE,
    NAMES,
    OVERRIDES,
    ROOM,
    TEXTS,
    expect_entries,
    expect_tame,
    write,
)
from tests.bench.in_process import Commands, Running
from tests.redis_server import RedisServer
from tests.waiting import wait_until
from tests.worlds import World
from worker.emulator import Emulator

READERS: Final = [
    ("show", ROOM, MESSAGE),
    ("explain", ROOM, MESSAGE),
    ("explain", NAMES[0], MESSAGE),
    ("show", ROOM, MESSAGE, "--names", "9", "--me", TEXTS[0]),
    ("show", ROOM, MESSAGE, "--who", TEXTS[0]),
    ("top",),
    ("top", NAMES[0]),
    ("channels",),
    ("tail", "--exit-at-end"),
    ("doctor",),
    ("config",),
    ("verify",),
]
SLIPS: Final = [
    ("show", "\x1b[5;35m\u202e", MESSAGE),
    ("show", ROOM, "\x1b[5;35m"),
    ("backfill", "a\nb"),
    ("forget", "a\nb", "--yes"),
    ("verify", "\u202e", "\x1b[5;35m"),
    ("backfill", "--since", "\x1b[5;35m\n"),
    ("tail", "--since", "\x1b[5;35m\n"),
    ("tail", "--format", "{\x1b[5;35m}"),
    ("emulator", "--fault", "\x1b[5;35m=1"),
]
WRITERS: Final = [("backfill",), ("reconcile",)]
QUICKLY: Final = {"TALLY_SETTLE_SECONDS": "0.1"}
"""The wait of verify between its passes."""


@pytest.fixture
def world(emulator: Emulator, real_redis: Redis, valkey: RedisServer, tmp_path: Path) -> World:
    """Yield a stage: a PubNub, a Redis and settings."""
    world = World(emulator, real_redis, valkey.url, tmp_path)
    world.settings |= {"TALLY_LOG_LEVEL": "debug", "TALLY_LOG_FORMAT": "json", "TALLY_HTTP": "off"}
    return world


async def comes(worker: Running, event: str) -> None:
    """Wait until the worker has logged an entry of that name."""
    await wait_until(
        lambda: worker.work.done() or worker.entries(event),
        what=lambda: worker.err[-3000:],
    )


@pytest.fixture
async def haunted(world: World) -> Commands:
    """Let users write hostile text, and let a worker count some of it."""
    world.state.groups.add(GROUP, ["in\u2066side"])
    commands = Commands(world.folder, world.settings | FOLLOWED)
    async with commands.worker() as worker:
        await wait_until(lambda: worker.work.done() or world.emulator.waiting)
        malformed = write(world.state)
        await world.settles()

        async def are_quarantined() -> bool:
            return len(await world.quarantine()) >= malformed

        await wait_until(are_quarantined, what=lambda: worker.err[-3000:])
        world.state.refuse(OVERRIDES, [GROUP])
        await comes(worker, "pubnub_refused")
        world.state.refuse()
    expect_entries(worker.err)
    expect_tame(worker.err)
    # One event is one entry, however many lines its text has.
    assert len(worker.entries("quarantined")) == malformed
    # Verify reports these differences.
    world.state.add(ROOM, MESSAGE, *["\x1b[5;35mblink\x1b[6n\n"] * 3, published=False)
    world.state.advance(1000)
    await world.redis.hset(f"tally:{{{ROOM}}}:counts:{MESSAGE}", f"{TEXTS[0]}:{TEXTS[3]}", 7)
    commands.ended.clear()
    return commands


@pytest.mark.parametrize("form", ["json", "console"])
async def test_hostile_text_gets_no_line_of_its_own(haunted: Commands, form: str) -> None:
    """In a pipe there is one JSON object a line, or lines without a control character.

    With ``--json`` the output is ASCII.
    """
    haunted.settings["TALLY_LOG_FORMAT"] = form
    codes = [(await haunted.do(*line, **QUICKLY)).code for line in (*READERS, *SLIPS)]
    as_json = [await haunted.do(*line, "--json", **QUICKLY) for line in READERS]
    codes += [(await haunted.do(*line)).code for line in WRITERS]

    assert codes == [*[0] * (len(READERS) - 1), 5, *[2] * len(SLIPS), 0, 0]
    for ended in haunted.ended:
        assert "Traceback" not in ended.out + ended.err
        expect_tame(ended.out)
        expect_tame(ended.err)
        assert not any(line.startswith('{"event":"fake"') for line in ended.err.splitlines())
        if form == "json":
            expect_entries(ended.err)
    for ended in as_json:
        assert all(map(json.loads, ended.out.splitlines()))
        assert ended.out.isascii()


async def test_hostile_text_reaches_no_terminal(haunted: Commands) -> None:
    """A terminal gets our own colours and bars, and text."""
    haunted.settings["TALLY_LOG_FORMAT"] = "auto"
    for line in (*READERS, *SLIPS):
        await haunted.do_on_a_terminal(*line, **QUICKLY)
    for line in WRITERS:
        await haunted.do_on_a_terminal(*line)

    for ended in haunted.ended:
        expect_tame(ended.out + ended.err, is_terminal=True)
        assert "Traceback" not in ended.out + ended.err
    assert all("\x1b[" in ended.err for ended in haunted.ended[-2:])  # bars are drawn


@pytest.mark.parametrize("status", [403, 500])
async def test_pubnubs_messages_are_only_text(world: World, status: int) -> None:
    """An error has control sequences, or thousands of names. Each gets one short line."""
    words = "".join(TEXTS) * 20
    names = [f"{text}{number}" for number in range(2_000) for text in TEXTS[:3]]

    async def answer(_request: web.BaseRequest) -> web.Response:
        refused = {"channels": [ROOM, *names], "channel-groups": names}
        return web.json_response(
            {"status": status, "message": words, "error": True, "payload": refused}, status=status
        )

    server = web.Server(answer)
    listener = await asyncio.get_running_loop().create_server(server, "127.0.0.1", 0)
    commands = Commands(world.folder, world.settings)
    commands.settings |= {
        "PUBNUB_ORIGIN": f"127.0.0.1:{listener.sockets[0].getsockname()[1]}",
        "TALLY_CHANNELS": ",".join([ROOM, *(f"{'y' * 80}{number}" for number in range(200))]),
    }
    try:
        async with commands.worker() as worker:
            await comes(worker, "pubnub_refused" if status == 403 else "pubnub_unreachable")
        doctor = await commands.do("doctor")
    finally:
        listener.close()
        await server.shutdown(1)
    expect_entries(worker.err)
    expect_tame(worker.err)
    expect_tame(doctor.out)
    assert doctor.code == 3
    assert max(map(len, doctor.out.splitlines())) < LONGEST_LINE


@pytest.mark.parametrize("text", [*TEXTS[:8], "\r"])
def test_the_check_notices_control_characters(text: str) -> None:
    """It does so in a pipe, and on a terminal beside our own colours."""
    with pytest.raises(AssertionError):
        expect_tame(f"room {text}")
    if text != "\r":
        with pytest.raises(AssertionError):
            expect_tame(f"\x1b[1mroom\x1b[0m {text}\r\n", is_terminal=True)


@pytest.mark.parametrize("line", [FAKE, "words", '{"event": "x"}\n\n', '{"event": "half'])
def test_the_check_notices_a_forged_line(line: str) -> None:
    """A user forged the line, or broke one."""
    with pytest.raises((AssertionError, ValueError)):
        expect_entries(f'{{"event": "ours", "level": "info", "timestamp": "now"}}\n{line}\n')
