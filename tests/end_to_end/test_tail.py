"""``tally tail`` as a process: in a pipe, on a terminal, while Redis is away, and what it costs."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from typing import Any, Final

import pytest

from reaction_tally.changes import COMPARE_SECONDS
from tests.processes import Child, environment
from tests.redis_server import MortalServer
from tests.terminals import COLOR, Terminal, columns_of
from tests.waiting import wait_until
from tests.worlds import KEYS, MESSAGE, ROOM, World
from worker.domain.action import Added, Identity, Origin
from worker.store.store import Store

HALL: Final = "hall"
NUMBERS: Final = count(1)
READ_BY_TAIL: Final = ("get", "hget", "mget", "xrange", "subscribe", "sscan", "smismember")


@pytest.fixture
async def counted(world: World) -> World:
    """A world with a few counts, and no worker."""
    await claim(world)
    await react(world, "👍", "ana")
    return world


async def claim(world: World) -> None:
    """Make the namespace one that holds tallies."""
    await world.redis.hset(KEYS.meta, "schema", "1")


async def react(world: World, value: str, uuid: str, channel: str = ROOM) -> None:
    """Count a reaction, as a worker does."""
    await world.redis.sadd(KEYS.channels, channel)
    action = str(int(MESSAGE) + next(NUMBERS))
    added = Added(Identity(channel, MESSAGE, "reaction", value, uuid), action, action)
    await Store(world.redis, KEYS).apply_all([(channel, [added])], Origin.LIVE)


@asynccontextmanager
async def tailing(world: World, *arguments: str) -> AsyncIterator[Child]:
    """Run ``tally tail`` until the block ends; begin when it follows."""
    before = await listeners(world)
    child = world.start("tail", *arguments)

    async def listens() -> bool:
        return await listeners(world) > before

    await wait_until(lambda: listens() if child.is_alive else True, what=child.tail)
    try:
        yield child
    finally:
        if child.is_alive:
            child.ask(signal.SIGTERM)
            assert await child.ended() == 143, child.tail()


async def listeners(world: World) -> int:
    """Return how many listen to hints."""
    ((_, count),) = await world.redis.pubsub_numsub(KEYS.hints)
    return int(count)


def changes(text: str) -> list[tuple[str, str, int]]:
    """Return channel, value and count of each JSON line."""
    lines = map(json.loads, text.splitlines())
    return [(line["channel"], line["value"], line["count"]) for line in lines]


async def test_a_pipe_gets_json_lines_as_they_happen(counted: World) -> None:
    """Of every channel, also of one that is new; each line at once."""
    async with tailing(counted) as tail:
        await react(counted, "🎉", "ben")
        await wait_until(lambda: changes(tail.out) == [(ROOM, "🎉", 1)], what=tail.tail)
        await react(counted, "🎉", "cem", HALL)
        await wait_until(lambda: len(changes(tail.out)) == 2, what=tail.tail)

    first, second = map(json.loads, tail.out.splitlines())
    assert (second["channel"], second["event"], second["type"]) == (HALL, "count", "reaction")
    assert first["message_timetoken"] == MESSAGE
    assert first["time"].endswith("Z")
    assert first["position"] == await counted.redis.get(KEYS.head(ROOM))
    assert tail.err == ""


async def test_names_and_wildcards_choose_channels(counted: World) -> None:
    """Changes of other channels are not printed."""
    async with tailing(counted, "news.*", HALL) as tail:
        for channel in (ROOM, "news.sport", "newspaper", HALL):
            await react(counted, "🎉", "ben", channel)
        expected = [("news.sport", "🎉", 1), (HALL, "🎉", 1)]
        await wait_until(lambda: sorted(changes(tail.out)) == sorted(expected), what=tail.tail)
    assert "hall: no worker has counted this channel yet." in tail.err


async def test_a_count_and_the_end_end_it(counted: World) -> None:
    """``--count`` after so many changes, ``--exit-at-end`` after what the journals hold."""
    for uuid in ("ben", "cem"):
        await react(counted, "👍", uuid)
    ended = await counted.do("tail", ROOM, "--exit-at-end")
    some = await counted.do("tail", ROOM, "--since", "begin", "--count", "2")
    nothing = await counted.do("tail", ROOM, "--exit-at-end", "--since", "0")

    everything = [(ROOM, "👍", count) for count in (1, 2, 3)]
    assert changes(ended.out) == everything
    assert changes(some.out) == everything[:2]
    assert nothing.out == ""
    assert [child.process.returncode for child in counted.children] == [0, 0, 0]
    assert "".join(child.err for child in counted.children) == ""


async def test_it_goes_on_from_a_position_or_a_time(counted: World) -> None:
    """First what is kept, then what comes, each change once."""
    position = await counted.redis.get(KEYS.head(ROOM))
    await react(counted, "👍", "ben")
    for since in (position, "1h"):
        known = [1, 2] if since == "1h" else [2]
        async with tailing(counted, ROOM, "--since", since) as tail:
            await react(counted, "🎉", since)
            await wait_until(lambda tail=tail: "udf89" in tail.out, what=tail.tail)  # type: ignore[misc]
        thumbs = [count for _, value, count in changes(tail.out) if value == "👍"]
        assert thumbs == known
        parties = [count for _, value, count in changes(tail.out) if value == "🎉"]
        assert parties == sorted(set(parties))


async def test_a_template_makes_the_line(counted: World) -> None:
    """Its names are those of the JSON, and text of users is escaped."""
    await react(counted, "\x1b[31m{count}", "ben")
    ended = await counted.do(
        *("tail", "--exit-at-end", "--format", r"{{{channel}}}\t{value}\t{count}")
    )

    assert ended.out == "{room}\t👍\t1\n{room}\t\\x1b[31m{count}\t1\n"


async def test_a_reader_that_goes_ends_it_quietly(counted: World) -> None:
    """As ``| head -1`` does. The exit code is 1, as of every command."""
    for number in range(50):
        await react(counted, "👍", f"user-{number}")
    own, pipe = os.pipe()
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "worker", "tail", "--since", "begin"),
        cwd=counted.folder,
        env=environment(counted.settings),
        stdout=pipe,
        stderr=subprocess.PIPE,
    )
    os.close(pipe)
    first = await asyncio.to_thread(os.read, own, 1)
    os.close(own)

    async def has_ended() -> bool:
        await react(counted, "🎉", f"user-{next(NUMBERS)}")
        return child.returncode is not None

    await wait_until(has_ended)
    _, said = await child.communicate()
    assert (child.returncode, first, said) == (1, b"{", b"")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_ends_it_silently(counted: World, number: signal.Signals) -> None:
    """With 128 and the signal's number, and without a traceback."""
    async with tailing(counted) as tail:
        tail.ask(number)
        assert await tail.ended() == 128 + number
    assert tail.out + tail.err == ""


async def test_ctrl_c_on_a_terminal_is_clean(counted: World) -> None:
    """Rows are drawn until then. NO_COLOR takes their colours away, and not their columns."""
    terminals = [
        Terminal(counted.folder, ("tail", "--since", "begin"), {**counted.settings, **settings})
        for settings in ({}, {"NO_COLOR": "1"})
    ]
    try:
        for terminal in terminals:
            await terminal.shows("👍")
        await react(counted, "👨‍👩‍👧", "ben")
        for terminal in terminals:
            await terminal.shows("👨‍👩‍👧")
            terminal.interrupt()
            assert await terminal.ended() == 130
    finally:
        for terminal in terminals:
            terminal.close()

    colored, plain = terminals
    assert "\x1b[36m" in colored.drawn
    assert all(code in {"\x1b[0m", "\x1b[1m", "\x1b[2m"} for code in COLOR.findall(plain.drawn))
    for terminal in terminals:
        first, second = terminal.drawn.splitlines()[:2]
        assert columns_of(first) == columns_of(second)
        assert "Traceback" not in terminal.drawn


async def test_nothing_is_lost_while_redis_is_away(mortal: tuple[World, MortalServer]) -> None:
    """It says so once, waits, and goes on where it was: each change once, also the missed ones."""
    world, server = mortal
    await claim(world)
    await react(world, "👍", "ana")
    async with tailing(world) as tail:
        await react(world, "👍", "ben")
        await wait_until(lambda: len(changes(tail.out)) == 1, what=tail.tail)
        await server.kill()
        await wait_until(lambda: "Waiting for it" in tail.err)
        await asyncio.sleep(0.5)  # some tries fail
        await server.revive()
        await react(world, "👍", "cem")
        await react(world, "🎉", "dan", HALL)
        await wait_until(lambda: len(changes(tail.out)) == 3, what=tail.tail)

    assert sorted(changes(tail.out)) == [(HALL, "🎉", 1), (ROOM, "👍", 2), (ROOM, "👍", 3)]
    away, back = tail.err.splitlines()
    assert away.startswith("tally: Redis does not answer")
    assert away.endswith("Waiting for it.")
    assert back == "tally: Redis answers again."


async def test_a_redis_that_forgot_is_a_reset(mortal: tuple[World, MortalServer]) -> None:
    """What it held before is unknown: a line of its own says so, and changes go on."""
    world, server = mortal
    await claim(world)
    await react(world, "👍", "ana")
    copy = server.copy(world.folder / "copy")
    async with tailing(world) as tail:
        await react(world, "👍", "ben")
        await wait_until(lambda: len(changes(tail.out)) == 1, what=tail.tail)
        await server.kill()
        await server.revive(copy)
        await wait_until(lambda: '"reset"' in tail.out, what=tail.tail)
        await react(world, "👍", "cem")
        await wait_until(lambda: len(tail.out.splitlines()) == 3, what=tail.tail)

    _, reset, change = map(json.loads, tail.out.splitlines())
    assert (reset["event"], reset["channel"]) == ("reset", ROOM)
    assert (change["value"], change["count"]) == ("👍", 2)


async def calls(redis: Any) -> dict[str, int]:
    """Return how often Redis was asked for what ``tail`` asks."""
    stats = await redis.info("commandstats")
    return {name: stats.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in READ_BY_TAIL}


@pytest.mark.parametrize(("names", "most"), [((ROOM,), 3), ((), 5)], ids=["one", "all"])
async def test_an_idle_tail_asks_seldom(counted: World, names: tuple[str, ...], most: int) -> None:
    """Three commands in five seconds for a channel, five for all: hints say what changes."""
    seen = 0.0
    """When no new comparison had been made yet."""

    async def compares() -> bool:
        nonlocal seen
        now = time.monotonic()
        has_compared = (await calls(counted.redis))["mget"] > before["mget"]
        seen = seen if has_compared else now
        return has_compared

    async with tailing(counted, *names) as tail:
        await react(counted, "👍", "ben")
        await wait_until(lambda: tail.out)
        before = await calls(counted.redis)
        await wait_until(compares)
        first, before = seen, await calls(counted.redis)
        await wait_until(compares)
        passed = time.monotonic() - first
        after = await calls(counted.redis)

    asked = {name: after[name] - before[name] for name in after}
    # One comparison may be under way at the beginning.
    assert sum(asked.values()) <= most * (asked["mget"] + 1), asked
    assert not asked["xrange"]
    assert passed >= COMPARE_SECONDS * asked["mget"]
