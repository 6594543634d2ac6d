"""``tally forget``: nothing is kept of a room that was invented, and nothing is asked for it."""

import io
import json
import sys

import pytest

from tests.bench.in_process import Running
from tests.rollbacks import is_repaired
from tests.waiting import wait_until
from tests.worlds import KEYS, ROOM, World

INVENTED = "hall.invented"
FOLLOWED = {"TALLY_CHANNELS": f"{ROOM},hall.*", "TALLY_SETTLE_SECONDS": "0.3"}


class Answer(io.StringIO):
    """What a person types at a terminal."""

    def isatty(self) -> bool:
        """Whether it is a terminal."""
        return True


async def mentions(world: World, name: str) -> set[str]:
    """Return the keys that have the name of a channel in them, or hold it."""
    found: set[str] = set()
    for key in await world.redis.keys():
        match await world.redis.type(key):
            case "set":
                held = await world.redis.smembers(key)
            case "zset":
                held = await world.redis.zrange(key, 0, -1)
            case "hash":
                held = await world.redis.hgetall(key)
                held = [*held, *held.values()]
            case _:
                held = ()
        if any(name in text for text in (key, *held)):
            found.add(key)
    return found


async def invent(world: World, worker: Running) -> None:
    """Let a stranger react in a room of a wildcard, and the worker repair its past."""
    world.add_past(3, "🎉", INVENTED)
    world.react("👍", "mallory", INVENTED)
    world.react()
    await is_repaired(world, worker)


async def forget(world: World) -> None:
    """Forget the room in a process of its own, beside a worker in this one."""
    child = await world.do("forget", INVENTED, "--yes", **FOLLOWED)
    assert child.process.returncode == 0, child.tail()


async def test_nothing_is_left_of_an_invented_room(world: World) -> None:
    """Only its journal, which ends, and the head that tells readers and workers of it."""
    async with world.run_worker(**FOLLOWED) as worker:
        await invent(world, worker)
    await world.redis.set(KEYS.pruned(INVENTED), 3)
    await world.redis.hset(KEYS.progress(INVENTED), "next", "1")
    await world.redis.hset(KEYS.owed(INVENTED), "unproven", "1")
    before = await world.redis.smembers(KEYS.channels)

    ended = await world.run_command("forget", INVENTED, "--yes", **FOLLOWED)

    assert ended.code == 0, ended.err
    assert ended.out == f"{INVENTED}: forgotten, 1 messages deleted.\n"
    assert await mentions(world, INVENTED) == {KEYS.journal(INVENTED), KEYS.head(INVENTED)}
    assert await world.redis.ttl(KEYS.journal(INVENTED)) > 0
    assert await world.redis.smembers(KEYS.channels) == before - {INVENTED}
    assert await world.counts() == {"👍": 1}


async def test_a_running_worker_counts_a_forgotten_room_anew(world: World) -> None:
    """Its next event makes it a new channel, owed a look at everything. Redis did not go back."""
    async with world.run_worker(**FOLLOWED) as worker:
        await invent(world, worker)
        await forget(world)
        assert await world.redis.smembers(KEYS.channels) == {ROOM}

        world.react("👍", "ben", INVENTED)
        await is_repaired(world, worker)

        assert await world.redis.smembers(KEYS.channels) == {ROOM, INVENTED}
        assert not worker.entries("redis_went_back")
        causes = [entry["cause"] for entry in worker.entries("gap")]
        assert causes.count("new_channel") == 2


async def test_a_forgotten_room_asks_pubnub_nothing(world: World) -> None:
    """Rounds leave it alone, in the worker that knew it, too."""
    settings = {**FOLLOWED, "TALLY_RECONCILE_SECONDS": "1"}
    async with world.run_worker(**settings) as worker:
        await invent(world, worker)
        await forget(world)

        def channels_of_rounds() -> list[int]:
            return [entry["channels"] for entry in worker.entries("round_starts")]

        seen = len(channels_of_rounds())
        # On a busy machine several later ones have read their channels before.
        await wait_until(
            lambda: channels_of_rounds()[seen:][-3:] == [1, 1, 1],
            what=lambda: worker.err[-3000:],
        )

    assert await world.redis.smembers(KEYS.channels) == {ROOM}


async def test_a_configured_room_is_not_forgotten(world: World) -> None:
    """It would be counted again at once. No other one is forgotten either."""
    await world.redis.sadd(KEYS.channels, ROOM, INVENTED)

    ended = await world.run_command("forget", INVENTED, ROOM, "--yes", **FOLLOWED)

    assert ended.code == 2
    assert f"The settings name '{ROOM}'" in ended.err
    assert await world.redis.smembers(KEYS.channels) == {ROOM, INVENTED}


@pytest.mark.parametrize(("answer", "code"), [("y\n", 0), ("n\n", 1), ("\n", 1)])
async def test_a_person_is_asked(
    world: World, answer: str, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only yes is yes."""
    await world.redis.sadd(KEYS.channels, INVENTED)
    monkeypatch.setattr(sys, "stdin", Answer(answer))

    ended = await world.run_command("forget", INVENTED)

    assert ended.code == code, ended.err
    assert f"Delete all tallies of {INVENTED}?" in ended.err
    assert await world.redis.sismember(KEYS.channels, INVENTED) == (code != 0)


@pytest.mark.parametrize("standard_input", [io.StringIO(), None], ids=["no terminal", "closed"])
async def test_a_program_must_say_yes(
    world: World, standard_input: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody is there to be asked."""
    monkeypatch.setattr(sys, "stdin", standard_input)

    ended = await world.run_command("forget", INVENTED)

    assert ended.code == 2
    assert "add --yes" in ended.err


async def test_an_unknown_room_is_named(world: World) -> None:
    """The JSON has what was kept of each room."""
    await world.redis.sadd(KEYS.channels, INVENTED)

    ended = await world.run_command("forget", INVENTED, "hall.typo", "--yes")
    assert ended.out.splitlines() == [
        f"{INVENTED}: forgotten, 0 messages deleted.",
        "hall.typo: was not known. Is the name right?",
    ]
    ended = await world.run_command("forget", "hall.typo", "--yes", "--json")

    nothing = {"channel": "hall.typo", "was_known": False, "messages": 0, "is_back": False}
    assert json.loads(ended.out) == {"channels": {"hall.typo": nothing}, "messages": 0}
