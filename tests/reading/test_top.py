"""``tally top``: the messages with the most reactions, and what was looked at."""

from itertools import count
from typing import Any, Final, cast

import pytest
from redis.asyncio import Redis

from reaction_tally.keys import Keys
from tests.redis_server import RedisServer
from worker.domain.action import Added, Identity, Origin
from worker.errors import ConfigurationError, DamagedKeyError
from worker.reading.top import CHANNELS, MESSAGES, Top, Wanted, read_top
from worker.store.pending_repairs import GapCause, PendingRepairs
from worker.store.store import Store

KEYS: Final = Keys()
FIRST: Final = 17_600_000_000_000_000
NUMBERS: Final = count(FIRST + 1_000_000)


class Room:
    """Counts reactions."""

    def __init__(self, redis: Redis) -> None:
        self.redis = cast("Any", redis)

    async def react(
        self, channel: str, message: int, users: int, value: str = "👍", type: str = "reaction"
    ) -> None:
        """Let so many users react to a message."""
        added = []
        for number in range(users):
            action = str(next(NUMBERS))
            identity = Identity(channel, str(message), type, value, f"user-{number}")
            added.append(Added(identity, action, action))
        await Store(self.redis, KEYS).apply_all([(channel, added)], Origin.LIVE)
        await self.redis.sadd(KEYS.channels, channel)


@pytest.fixture
async def room(real_redis: Redis) -> Room:
    """A Redis that holds tallies."""
    await cast("Any", real_redis).hset(KEYS.meta, "schema", "1")
    return Room(real_redis)


def ranking(top: Top) -> list[tuple[str, int, int]]:
    """Return channel, message and count."""
    return [(each.channel, int(each.timetoken), each.count) for each in top.messages]


async def test_the_most_reactions_come_first(room: Room, valkey: RedisServer) -> None:
    """Over all channels, or in one; the newer of two messages first."""
    await room.react("a", 1, 2)
    await room.react("a", 2, 5)
    await room.react("b", 3, 5)
    await room.react("b", 3, 1, "🎉")

    everything = await read_top(valkey.url, "tally", None, Wanted(limit=2))
    of_a = await read_top(valkey.url, "tally", "a", Wanted())

    assert ranking(everything) == [("b", 3, 6), ("a", 2, 5)]
    assert (everything.looked_at, everything.known) == (("b", "a"), 2)
    assert everything.messages[0].counts == {"reaction": {"👍": 5, "🎉": 1}}
    assert ranking(of_a) == [("a", 2, 5), ("a", 1, 2)]


@pytest.mark.parametrize("channel", [None, "a"])
async def test_only_what_is_wanted_counts(
    room: Room, valkey: RedisServer, channel: str | None
) -> None:
    """A type, a value, messages from a time on; all their tallies are shown."""
    await room.react("a", FIRST, 5)
    await room.react("a", FIRST + 1, 2, "🎉")
    await room.react("a", FIRST + 2, 3, "read", "receipt")
    await room.react("a", FIRST + 2, 1, "🎉")

    async def found(**wanted: Any) -> list[tuple[int, int]]:
        top = await read_top(valkey.url, "tally", channel, Wanted(**wanted))
        return [(message - FIRST, count) for _, message, count in ranking(top)]

    assert await found() == [(0, 5), (2, 4), (1, 2)]
    assert await found(type="receipt") == [(2, 3)]
    assert await found(value="🎉") == [(1, 2), (2, 1)]
    assert await found(type="receipt", value="🎉") == []
    assert await found(since=str(FIRST + 1)) == [(2, 4), (1, 2)]


async def test_the_top_of_all_is_bounded(room: Room, valkey: RedisServer) -> None:
    """However many channels and messages there are, the latest ones are looked at."""
    await room.react("busy", FIRST, 9)
    for number in range(MESSAGES):
        await room.react("busy", FIRST + 1 + number, 1)
    await room.react("quiet", FIRST, 8)
    for number in range(CHANNELS - 1):
        await room.react(f"room-{number}", FIRST, 1)
    await room.react("busy", FIRST + 500, 2)
    await room.redis.set(KEYS.head("quiet"), "1-0")
    await room.redis.config_resetstat()

    top = await read_top(valkey.url, "tally", None, Wanted(limit=1))

    assert ranking(top) == [("busy", FIRST + 500, 2)]
    assert (len(top.looked_at), top.known) == (CHANNELS, CHANNELS + 1)
    assert "quiet" not in top.looked_at
    stats = await room.redis.info("commandstats")
    assert stats["cmdstat_hgetall"]["calls"] <= MESSAGES + CHANNELS


async def test_channels_in_doubt_are_named(room: Room, valkey: RedisServer) -> None:
    """Only those among the messages that are printed."""
    for channel in ("a", "b"):
        await room.react(channel, 1, 1 + len(channel))
    await PendingRepairs(room.redis, KEYS).mark(["a"], GapCause.STALE_CURSOR)

    assert (await read_top(valkey.url, "tally", None, Wanted())).in_doubt == {"a"}
    assert (await read_top(valkey.url, "tally", "b", Wanted())).in_doubt == frozenset()


async def test_an_unknown_channel_is_told(room: Room, valkey: RedisServer) -> None:
    """And a name that no channel can have is refused."""
    await room.redis.sadd(KEYS.channels, "empty")

    assert not (await read_top(valkey.url, "tally", "nope", Wanted())).is_known
    assert (await read_top(valkey.url, "tally", "empty", Wanted())).is_known
    assert (await read_top(valkey.url, "tally", None, Wanted())).messages == ()
    with pytest.raises(ConfigurationError):
        await read_top(valkey.url, "tally", "a:b", Wanted())


async def test_a_damaged_channel_stops_no_other(room: Room, valkey: RedisServer) -> None:
    """It is named; asked for by name it is an error that names the key."""
    await room.react("a", 1, 2)
    await room.react("b", 1, 2)
    await room.redis.delete(KEYS.messages("a"))
    await room.redis.set(KEYS.messages("a"), "not ours")

    top = await read_top(valkey.url, "tally", None, Wanted())

    assert ranking(top) == [("b", 1, 2)]
    (failure,) = top.failures
    assert f"Redis's key {KEYS.messages('a')} holds a string" in failure
    with pytest.raises(DamagedKeyError):
        await read_top(valkey.url, "tally", "a", Wanted())
