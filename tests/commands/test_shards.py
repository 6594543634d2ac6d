"""Channels divided among workers: each keeps its own right, and says what is true of them."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.processes import Child
from tests.redis_server import RedisServer
from tests.waiting import wait_until
from tests.worlds import KEYS, MESSAGE, ROOM, World, open_world
from worker.domain.shards import Shard, Share
from worker.errors import ExitCode
from worker.store.pending_repairs import GapCause
from worker.store.tables import Tables

ROOMS = [f"room-{number}" for number in range(10)]
FIRST, SECOND = Shard(0, 2), Shard(1, 2)


def of(shard: Shard) -> list[str]:
    """Return the rooms of a shard."""
    return sorted(filter(shard.has, ROOMS))


async def is_ready(child: Child) -> None:
    """Wait until a worker says that its counts can be relied on."""
    await child.logs("http_listens")
    await wait_until(child.is_ready, what=child.tail)


async def shows(child: Child, **expected: int) -> None:
    """Wait until these metrics of a worker have these values."""

    async def are_these() -> bool:
        figures = await child.figures()
        return {name: figures[name] for name in expected} == expected

    await wait_until(are_these, what=child.tail)


@pytest.fixture
async def world(valkey: RedisServer, real_redis: Any, tmp_path: Path) -> AsyncIterator[World]:
    """A world on an empty Redis; its processes have ended afterwards."""
    async with open_world(valkey.url, tmp_path) as world:
        world.settings["TALLY_SETTLE_SECONDS"] = "0.5"
        yield world


@pytest.fixture
def rooms(world: World) -> World:
    """A world of ten rooms; each has a past."""
    world.settings["TALLY_CHANNELS"] = ",".join(ROOMS)
    for room in ROOMS:
        world.add_past(3, channel=room)
    return world


async def test_two_shards_count_everything(rooms: World) -> None:
    """Each follows its channels, and its metrics are of them alone."""
    shards = {shard: rooms.start("run", TALLY_SHARD=str(shard)) for shard in (FIRST, SECOND)}
    for child in shards.values():
        await is_ready(child)
    for room in ROOMS:
        rooms.react("🎉", channel=room)
    await rooms.settles()
    await wait_until(rooms.owes_nothing, what=rooms.logs)

    for shard, child in shards.items():
        own = len(of(shard))
        _, status = await child.get_json("/status")
        assert status["shard"] == str(shard)
        (gap,) = child.entries("gap")
        assert gap["channels"] == own
        assert child.entries("worker_starts")[0]["shard"] == str(shard)

        await shows(child, tally_channels=own, tally_names=own)
        await shows(child, **{f'tally_shards{{shard="{shard.index}"}}': shard.count})
    # Each cost what its channels cost: nobody was backfilled twice.
    figures = [await child.figures() for child in shards.values()]
    settled = sum(figure['tally_reconciles_total{result="settled"}'] for figure in figures)
    assert settled == len(ROOMS)


async def test_a_worker_without_a_shard_has_the_only_one(world: World) -> None:
    """Whoever counts the shards that have a worker sees that none is missing."""
    child = world.start("run")
    await is_ready(child)
    await shows(child, **{'tally_shards{shard="0"}': 1})


async def test_a_shard_without_channels_is_healthy(world: World) -> None:
    """It has nothing to follow, and says so."""
    (other,) = (shard for shard in (FIRST, SECOND) if not shard.has(ROOM))
    child = world.start("run", TALLY_SHARD=str(other))
    await is_ready(child)

    assert (await child.get("/livez"))[0] == 200
    assert child.entries("nothing_to_follow")[0]["shard"] == str(other)
    assert (await child.figures())["tally_names"] == 0
    assert await child.stopped() == ExitCode.DONE
    assert world.emulator.requests["subscribe"] == 0


async def test_a_shard_repairs_its_own_channels(rooms: World) -> None:
    """The marks of others stay for their worker."""
    tables = Tables(rooms.redis, KEYS)
    await tables.owe(ROOMS, GapCause.OVERFLOW)
    first = rooms.start("run", TALLY_SHARD=str(FIRST))
    await wait_until(lambda: _owed(tables, of(SECOND)), what=first.tail)
    assert await first.stopped() == ExitCode.DONE

    second = rooms.start("run", TALLY_SHARD=str(SECOND))
    await wait_until(rooms.owes_nothing, what=second.tail)
    assert await rooms.is_exact()


async def _owed(tables: Tables, channels: list[str]) -> bool:
    """Tell whether exactly these channels are owed a repair."""
    return sorted(await tables.pending.read_all(ROOMS)) == channels


async def test_a_wildcard_belongs_to_one_shard(world: World) -> None:
    """So do its rooms, whatever their own shards are."""
    world.settings["TALLY_CHANNELS"] = "chat.*"
    shards = {shard: world.start("run", TALLY_SHARD=str(shard)) for shard in (FIRST, SECOND)}
    for child in shards.values():
        await is_ready(child)
    rooms = [f"chat.{number}" for number in range(8)]
    for room in rooms:
        world.react(channel=room)
    await world.settles()
    await wait_until(world.owes_nothing, what=world.logs)

    for shard, child in shards.items():
        await shows(child, tally_channels=len(rooms) if shard.has("chat.*") else 0)


@pytest.mark.parametrize("command", ["backfill", "reconcile"])
async def test_commands_of_shards_do_everything_together(rooms: World, command: str) -> None:
    """As an Indexed Job runs them; and none does what another one does."""
    done: list[str] = []
    for shard in (FIRST, SECOND):
        ended = await rooms.run_command(command, "--shard", str(shard), "--json")
        assert ended.code == ExitCode.DONE, ended.err
        channels = json.loads(ended.out)["channels"]
        assert sorted(channels) == of(shard)
        done += channels
    assert sorted(done) == ROOMS
    assert await rooms.is_exact()


async def test_a_shard_may_have_nothing_to_do(world: World) -> None:
    """Where channels are few: that is no failure of a Job."""
    (other,) = (shard for shard in (FIRST, SECOND) if not shard.has(ROOM))
    for command in ("backfill", "reconcile", "verify"):
        ended = await world.run_command(command, "--shard", str(other))
        assert ended.code == ExitCode.DONE, ended.err
    assert world.emulator.requests["actions"] == 0


@pytest.mark.parametrize("command", ["backfill", "reconcile", "verify"])
async def test_a_wrong_shard_is_refused(world: World, command: str) -> None:
    """With the right form; and channels beside a shard are two answers to one question."""
    for text, words in {"2/2": "0/2 to 1/2", "1": "such as 0/3", "a/b": "such as 0/3"}.items():
        ended = await world.run_command(command, "--shard", text)
        assert ended.code == ExitCode.USAGE
        assert words in " ".join(ended.err.replace("│", " ").split())
    ended = await world.run_command(command, ROOM, "--shard", "0/2")
    assert ended.code == ExitCode.USAGE
    assert "--shard" in ended.err


async def test_config_and_doctor_show_the_part(rooms: World) -> None:
    """How many of the configured names are the shard's own."""
    words = f"shard 0/2 has {len(of(FIRST))} of the 10 configured names"
    for command in ("config", "doctor"):
        ended = await rooms.run_command(command, TALLY_SHARD="0/2")
        assert ended.code == ExitCode.DONE, ended.out
        assert words in ended.out
    shown = json.loads((await rooms.run_command("config", "--json", TALLY_SHARD="0/2")).out)
    assert shown["shard"] == {
        "shard": "0/2",
        "own_names": len(of(FIRST)),
        "configured_names": 10,
    }
    assert json.loads((await rooms.run_command("config", "--json")).out)["shard"] is None


@pytest.mark.parametrize("text", ["3/3", "a/b", "0/0", "1"])
async def test_a_wrong_setting_is_refused(world: World, text: str) -> None:
    """Before anything is opened; with the right form."""
    ended = await world.run_command("run", TALLY_SHARD=text)
    assert ended.code == ExitCode.USAGE
    assert "TALLY_SHARD" in ended.err
    assert "/3" in ended.err or "1 to 1024" in ended.err
    assert await world.redis.exists(KEYS.counts(ROOM, MESSAGE)) == 0


async def test_each_shard_has_its_last_round(world: World) -> None:
    """Otherwise one that makes none would look as if it did."""
    first, other, all_of_them = (
        Tables(world.redis, KEYS, share=share).rounds
        for share in (Share(FIRST), Share(SECOND), None)
    )
    await first.save("17600000000000000")

    assert await first.read() == "17600000000000000"
    assert await other.read() is None
    assert await all_of_them.read() is None
    assert await world.redis.ttl(KEYS.shard_round("0/2")) > 0
