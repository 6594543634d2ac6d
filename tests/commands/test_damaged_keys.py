"""A key of the wrong type is a failure of its channel alone. It is named, and mended by a DEL.

Another program has written under our names.
"""

import json
import shlex
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final, cast

import aiohttp
import pytest

from tests.bench.in_process import Running
from tests.redis_server import RedisServer
from tests.waiting import wait_until
from tests.worlds import MESSAGE, ROOM, World, open_world
from worker.errors import ExitCode

HALL: Final = "hall"
OF_A_MESSAGE: Final = ("counts", "actions", "removed")
OF_A_CHANNEL: Final = ("head", "journal", "messages")
NOTES: Final = ("owed", "progress")
"""What the worker itself replaces: a loss of them costs a repair."""
SETTINGS: Final = {
    "TALLY_CHANNELS": f"{ROOM},{HALL}",
    "TALLY_SETTLE_SECONDS": "0.3",
    "TALLY_LOG_FORMAT": "json",
}


@pytest.fixture
async def world(valkey: RedisServer, real_redis: object, tmp_path: Path) -> AsyncIterator[World]:
    """A world on an empty Redis, with a reaction in each of two rooms."""
    async with open_world(valkey.url, tmp_path) as world:
        yield world


def name_of(own: str) -> str:
    """Return a key of the room."""
    return f"tally:{{{ROOM}}}:{own}"


async def damage(world: World, kind: str) -> str:
    """Put a value of a wrong type in place of a key; return the key."""
    key = name_of(f"{kind}:{MESSAGE}" if kind in OF_A_MESSAGE else kind)
    redis = cast("Any", world.redis)
    await redis.delete(key)
    if kind == "head":
        await redis.rpush(key, "not ours")
    else:
        await redis.set(key, "not ours")
    return key


async def count_both(world: World, worker: Running) -> None:
    """Count a reaction in each room."""
    world.react("👍", "ana")
    world.react("👍", "ana", HALL)
    await world.settles()
    await wait_until(world.owes_nothing, what=lambda: worker.err)


def commands_about(key: str, log: str) -> list[str]:
    """Return what the log says to type about a key."""
    reasons = [json.loads(line).get("reason", "") for line in log.splitlines()]
    return [
        reason.partition("then type: ")[2] for reason in reasons if f"Redis's key {key} " in reason
    ]


async def others_go_on(world: World, worker: Running) -> None:
    """Expect that the other room is counted, while the room's own events are refused.

    PubNub loses events of the room at the same time: a repair is needed for them.
    """
    for number in range(120):
        world.react("🎉", f"user-{number}")
    for number in range(3):
        world.react("🎉", f"user-{number}", HALL)

    async def hall_is_counted() -> bool:
        assert not worker.work.done(), worker.err
        counts = await world.reader.get(HALL, MESSAGE)
        return counts == {"reaction": {"👍": 1, "🎉": 3}}

    await wait_until(hall_is_counted, what=lambda: worker.err)


async def is_mended(world: World, worker: Running, key: str) -> None:
    """Expect that the key is named, and that what the log says to type repairs the room."""
    await wait_until(lambda: commands_about(key, worker.err), what=lambda: worker.err)
    _, *command = shlex.split(commands_about(key, worker.err)[0])
    await world.redis.execute_command(*command)

    async def is_exact() -> bool:
        assert not worker.work.done(), worker.err
        return await world.is_exact() and await world.owes_nothing()

    await wait_until(is_exact, what=lambda: worker.err)


@pytest.mark.parametrize("kind", [*OF_A_CHANNEL, *OF_A_MESSAGE])
async def test_a_damaged_key_stops_its_channel_only(world: World, kind: str) -> None:
    """While the worker runs. The log names key and channel. A DEL is enough."""
    async with world.run_worker(**SETTINGS) as worker:
        await count_both(world, worker)
        key = await damage(world, kind)
        await others_go_on(world, worker)
        await is_mended(world, worker, key)


@pytest.mark.parametrize("kind", [*OF_A_CHANNEL, *OF_A_MESSAGE])
async def test_a_key_that_was_damaged_before_the_start_stops_its_channel_only(
    world: World, kind: str
) -> None:
    """The worker starts, and names it."""
    async with world.run_worker(**SETTINGS) as worker:
        await count_both(world, worker)
    key = await damage(world, kind)
    world.react("❤", "ben")
    async with world.run_worker(**SETTINGS) as worker:
        await others_go_on(world, worker)
        await is_mended(world, worker, key)


@pytest.mark.parametrize("kind", NOTES)
async def test_a_damaged_note_is_replaced(world: World, kind: str) -> None:
    """A mark must be written there, at once. What was lost with the key costs one repair."""
    async with world.run_worker(**SETTINGS) as worker:
        await count_both(world, worker)
        key = await damage(world, kind)
        await others_go_on(world, worker)
        await is_replaced(world, worker, key)


@pytest.mark.parametrize("kind", NOTES)
async def test_a_note_that_was_damaged_before_the_start_is_replaced(
    world: World, kind: str
) -> None:
    """Nobody knows what was owed. So the channel is repaired."""
    async with world.run_worker(**SETTINGS) as worker:
        await count_both(world, worker)
    key = await damage(world, kind)
    world.react("❤", "ben", published=kind == "progress")
    async with world.run_worker(**SETTINGS) as worker:
        if kind == "progress":
            await others_go_on(world, worker)
        await is_replaced(world, worker, key)


async def is_replaced(world: World, worker: Running, key: str) -> None:
    """Expect that the key is named, and that the room is repaired without help."""

    async def is_exact() -> bool:
        assert not worker.work.done(), worker.err
        named = {entry["key"] for entry in worker.entries("key_replaced")}
        return named == {key} and await world.is_exact() and await world.owes_nothing()

    await wait_until(is_exact, what=lambda: worker.err)


async def test_a_mark_that_is_no_time_is_replaced(world: World) -> None:
    """It counts as a mark of long ago. A repair takes it away."""
    async with world.run_worker(**SETTINGS) as worker:
        await count_both(world, worker)
    await cast("Any", world.redis).hset(name_of("owed"), "forbidden", "yesterday")
    world.react("❤", "ben", published=False)
    async with world.run_worker(**SETTINGS):
        await world.settles()
        await wait_until(world.owes_nothing)


@pytest.mark.parametrize("kind", ["messages", "actions", "head"])
async def test_rounds_go_on_beside_a_damaged_key(world: World, kind: str) -> None:
    """They leave the room to the repair queue, and look at the others."""
    every = {"TALLY_RECONCILE_SECONDS": "1", "TALLY_RECONCILE_FULL_SECONDS": "2"}
    async with world.run_worker(**SETTINGS, **every) as worker:
        await count_both(world, worker)
        key = await damage(world, kind)
        rounds = len(worker.entries("round_starts"))
        world.react("🎉", "ben", HALL, published=False)

        async def hall_is_counted() -> bool:
            assert not worker.work.done(), worker.err
            counts = await world.reader.get(HALL, MESSAGE)
            is_looked_at = len(worker.entries("round_starts")) >= rounds + 3
            return is_looked_at and counts == {"reaction": {"👍": 1, "🎉": 1}}

        await wait_until(hall_is_counted, what=lambda: worker.err)
        await is_mended(world, worker, key)


async def test_a_head_that_is_no_id_is_named(world: World) -> None:
    """A text of the right type is damage, too."""
    async with world.run_worker(**SETTINGS) as worker:
        await count_both(world, worker)
        key = name_of("head")
        await cast("Any", world.redis).set(key, "not ours")
        await others_go_on(world, worker)
        await is_mended(world, worker, key)


@pytest.mark.parametrize("own", ["newest", "look_next"])
async def test_a_place_that_is_no_time_is_ignored(world: World, own: str) -> None:
    """A repair begins anew. The worker goes on, also after a restart."""
    place = {
        **dict.fromkeys(["newest", "next", "look_next", "look_proven_until"], "17600000000000000"),
        "actions": "1",
        "look_began": "1",
        "look_in_doubt": "0",
        own: "not ours",
    }
    async with world.run_worker(**SETTINGS) as worker:
        await count_both(world, worker)
    await cast("Any", world.redis).hset(name_of("progress"), mapping=place)
    await cast("Any", world.redis).hset(name_of("owed"), "overflow", "1")
    world.react("❤", "ben", published=False)
    async with world.run_worker(**SETTINGS) as worker:

        async def is_exact() -> bool:
            assert not worker.work.done(), worker.err
            return await world.is_exact() and not await world.owed()

        await wait_until(is_exact, what=lambda: worker.err)


async def test_an_action_that_has_no_time_is_deleted(world: World) -> None:
    """Nobody's action counts, and an action of somebody is counted as PubNub lists it."""
    actions = name_of(f"actions:{MESSAGE}")
    async with world.run_worker(**SETTINGS) as worker:
        await count_both(world, worker)
        redis = cast("Any", world.redis)
        for user in ("ana", "nobody"):
            await redis.hset(actions, f"reaction:👍:{user}", "not ours")
        for user in ("ana", "nobody", "who"):
            await redis.hset(actions, f"reaction:🎉:{user}", "not ours")
        await redis.hset(name_of("owed"), "overflow", "1")
    async with world.run_worker(**SETTINGS) as worker:

        async def is_mended_alone() -> bool:
            assert not worker.work.done(), worker.err
            return len(await redis.hgetall(actions)) == 1 and await world.owes_nothing()

        await wait_until(is_mended_alone, what=lambda: worker.err)
        assert await world.is_exact()
        assert (await world.run_command("verify", **SETTINGS)).code == ExitCode.DONE


async def test_lost_channels_are_known_again(world: World) -> None:
    """An eviction or a hand deleted the set. Without it no round would look at anything."""
    async with world.run_worker(**SETTINGS) as worker:
        await count_both(world, worker)
        await cast("Any", world.redis).delete("tally:channels")
        world.react("❤", "ben", published=False)

        async def is_exact() -> bool:
            assert not worker.work.done(), worker.err
            return await world.is_exact() and await world.owes_nothing()

        await wait_until(is_exact, what=lambda: worker.err)
        assert await cast("Any", world.redis).smembers("tally:channels") == {ROOM, HALL}


async def test_a_count_of_losses_that_is_no_number_is_named(world: World) -> None:
    """It must be known before anything is pruned."""
    async with world.run_worker(**SETTINGS) as worker:
        await count_both(world, worker)
        key = name_of("pruned")
        await cast("Any", world.redis).set(key, "not ours")
        [action] = world.state.actions(ROOM)
        world.take_back(action.timetoken, published=False)
        await others_go_on(world, worker)
        await is_mended(world, worker, key)


async def test_the_status_shows_a_damaged_channel(world: World) -> None:
    """The pages are about all channels. One damaged key does not silence them."""
    async with world.run_worker(**SETTINGS) as worker:
        await count_both(world, worker)
        for kind in ("owed", "progress"):
            await damage(world, kind)
        [listens] = worker.entries("http_listens")
        async with aiohttp.ClientSession(f"http://127.0.0.1:{listens['port']}") as client:
            status = await (await client.get("/status")).json()
            measured = await (await client.get("/metrics")).text()

    assert set(status["redis"]["owed"][ROOM]) == {"damaged_key"}
    assert 'tally_channels_owed{cause="damaged_key"} 1.0' in measured


@pytest.mark.parametrize("command", ["show", "explain"])
async def test_a_message_that_cannot_be_read_names_its_key(world: World, command: str) -> None:
    """And says what to type."""
    async with world.run_worker(**SETTINGS) as worker:
        await count_both(world, worker)
    key = await damage(world, "counts")

    ended = await world.do(command, ROOM, MESSAGE, **SETTINGS)

    assert ended.process.returncode == ExitCode.REDIS_UNFIT
    assert f"Redis's key {key} holds a string" in ended.err


@pytest.mark.parametrize("line", ["top", "channels", "tail", "show room 1", "explain room 1"])
async def test_a_damaged_list_of_channels_is_named_to_readers(world: World, line: str) -> None:
    """They say what to type, as a worker does."""
    redis = cast("Any", world.redis)
    await redis.hset("tally:meta", "schema", "1")
    await redis.set("tally:channels", "not ours")

    ended = await world.run_command(*line.split(), **SETTINGS)

    assert ended.code == ExitCode.REDIS_UNFIT
    assert "Redis's key tally:channels holds a string" in ended.err
    await redis.delete("tally:channels")


async def test_a_damaged_key_of_all_channels_ends_the_worker_by_name(world: World) -> None:
    """It was running. A supervisor starts it again, and the next start says the same."""
    worker = world.start("run", **SETTINGS)
    await worker.logs("subscription_starts")
    await world.settles()
    redis, key = cast("Any", world.redis), "tally:meta"
    await redis.delete(key)
    await redis.set(key, "not ours")

    assert await worker.ended() == ExitCode.REDIS_UNFIT
    assert f"Redis's key {key} holds a string" in worker.err
    assert "Traceback" not in worker.err


GLOBAL: Final = (
    *("channels", "meta", "subscriptions", "budget", "quarantine", "round", "cursor"),
    *("proven", "proven:full"),
)


@pytest.mark.parametrize("kind", GLOBAL)
async def test_a_damaged_key_of_all_channels_is_refused_at_the_start(
    world: World, kind: str
) -> None:
    """The sentence names it. Once it is deleted, nothing is lost."""
    async with world.run_worker(**SETTINGS) as worker:
        await count_both(world, worker)
    [cursor] = await world.cursors()
    key = cursor if kind == "cursor" else f"tally:{kind}"
    redis = cast("Any", world.redis)
    held = await redis.get(key) if kind in ("budget", "round") else None
    await redis.delete(key)
    await (redis.rpush(key, "not ours") if kind in ("budget", "round") else redis.set(key, "x"))
    world.react("🎉", "ben", published=False)

    ended = await world.do("run", **SETTINGS)

    assert ended.process.returncode == ExitCode.REDIS_UNFIT
    assert f"Redis's key {key} holds a " in ended.err
    assert f"then type: redis-cli DEL {key}\n" in ended.err
    assert "Traceback" not in ended.err

    await redis.delete(key)
    if held:
        await redis.set(key, held)
    async with world.run_worker(**SETTINGS):
        await world.run_command("reconcile", **SETTINGS)
        await world.settles()
