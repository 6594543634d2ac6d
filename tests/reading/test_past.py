"""``tally tail --since``: what the journals hold, and whether they say what is missing."""

from itertools import count
from typing import Any, Final, cast

from redis.asyncio import Redis

from reaction_tally import Reset
from reaction_tally.journal import START
from reaction_tally.keys import Keys
from worker.domain.action import Added, Identity, Origin, Removed
from worker.reading.past import TimedChange
from worker.reading.tail import Event, Notice, Tail
from worker.source.names import Names
from worker.store.journal import Journal
from worker.store.reader import Tallies
from worker.store.store import Store

KEYS: Final = Keys()
ROOM: Final = "room"
MESSAGE: Final = "17600000001728660"
NUMBERS: Final = count(1)


async def react(redis: Redis, *users: str, channel: str = ROOM) -> str:
    """Count reactions in one script call; return the id of their entry."""
    client = cast("Any", redis)
    await client.hset(KEYS.meta, "schema", "1")
    await client.sadd(KEYS.channels, channel)
    added = []
    for user in users:
        action = str(int(MESSAGE) + next(NUMBERS))
        added.append(Added(Identity(channel, MESSAGE, "reaction", user, user), action, action))
    await Store(redis, KEYS).apply_all([(channel, added)], Origin.LIVE)
    return str(await client.get(KEYS.head(channel)))


async def past(redis: Redis, last: str, *names: str) -> list[Event]:
    """Return what the journals hold after an entry."""
    tail = Tail(Tallies(redis, KEYS), Names.of(names))
    events = [event async for event in tail.begin()]
    events += [event async for event in tail.past(last)]
    return events


def values(events: list[Event]) -> list[str]:
    """Return the value of each change; the class of everything else."""
    return [
        event.change.value if isinstance(event, TimedChange) else type(event).__name__
        for event in events
    ]


async def test_changes_after_an_entry_are_read(redis: Redis) -> None:
    """The last one of an entry has its position, and each has its time."""
    first = await react(redis, "a")
    second = await react(redis, "b", "c")
    third = await react(redis, "d")

    events = await past(redis, first)

    assert values(events) == ["b", "c", "d"]
    changes = [event for event in events if isinstance(event, TimedChange)]
    assert [event.change.position for event in changes] == [first, second, third]
    assert [event.at for event in changes] == [
        int(entry.partition("-")[0]) for entry in (second, second, third)
    ]
    assert values(await past(redis, START)) == ["a", "b", "c", "d"]
    assert values(await past(redis, third)) == []


async def test_a_time_between_two_entries_is_no_entry(redis: Redis) -> None:
    """The chain of the journal is whole all the same."""
    first = await react(redis, "a")
    milliseconds = int(first.partition("-")[0])

    assert values(await past(redis, f"{milliseconds - 1}-9")) == ["a"]
    assert values(await past(redis, f"{milliseconds}-999999")) == []


async def test_several_changes_of_a_tally_are_the_last_one(redis: Redis) -> None:
    """All changes of an entry happened at once."""
    await react(redis, "a")
    identity = Identity(ROOM, MESSAGE, "reaction", "👍", "ana")
    other = Identity(ROOM, MESSAGE, "reaction", "👍", "ben")
    action = str(int(MESSAGE) + 10_000)
    events = [Added(identity, action, action), Added(other, action, action)]
    await Store(redis, KEYS).apply_all([(ROOM, events)], Origin.LIVE)
    removed = [Removed(identity, action, action), Removed(other, action, action)]
    await Store(redis, KEYS).apply_all([(ROOM, removed)], Origin.LIVE)

    _, two, none = [event for event in await past(redis, START) if isinstance(event, TimedChange)]

    assert (two.change.count, none.change.count) == (2, 0)


async def test_a_trimmed_journal_says_how_far_it_reaches(redis: Redis) -> None:
    """Only if what is gone is wanted."""
    first = await react(redis, "a")
    second = await react(redis, "b")
    await react(redis, "c")
    await cast("Any", redis).xtrim(KEYS.journal(ROOM), maxlen=1, approximate=False)

    notice, *rest = await past(redis, first)

    assert isinstance(notice, Notice)
    assert notice.text.startswith("room: the journal reaches back to 20")
    assert values(rest) == ["c"]
    assert values(await past(redis, second)) == ["c"]


async def test_a_journal_that_ended_says_so(redis: Redis) -> None:
    """A channel that is quiet for a day has none."""
    head = await react(redis, "a")
    await cast("Any", redis).delete(KEYS.journal(ROOM))

    (notice,) = await past(redis, START)

    assert notice == Notice("room: its journal has ended. Older changes are gone.")
    assert await past(redis, head) == []


async def test_a_missing_entry_is_a_reset(redis: Redis) -> None:
    """In the middle, and at the end."""
    first = await react(redis, "a")
    second = await react(redis, "b")
    third = await react(redis, "c")
    await cast("Any", redis).xdel(KEYS.journal(ROOM), second)
    events = await past(redis, START)
    assert values(events) == ["a", "Reset", "c"]
    assert events[1] == Reset(ROOM, second)

    await cast("Any", redis).xdel(KEYS.journal(ROOM), third)
    assert await past(redis, first) == [Reset(ROOM, third)]


async def test_a_damaged_journal_concerns_its_channel(redis: Redis) -> None:
    """Another program wrote it, or an entry of it. The others are read."""
    await react(redis, "a", channel="damaged")
    await react(redis, "b", channel="forged")
    await react(redis, "c")
    client = cast("Any", redis)
    await client.xadd(KEYS.journal("forged"), {"after": "1-1", "origin": "live", "0": "nonsense"})
    await client.set(
        KEYS.head("forged"), (await client.xrevrange(KEYS.journal("forged"), count=1))[0][0]
    )
    await client.delete(KEYS.journal("damaged"), KEYS.head("damaged"))
    await client.set(KEYS.journal("damaged"), "not ours")
    await client.rpush(KEYS.head("damaged"), "not ours")

    events = await past(redis, START)

    assert sorted(values(events)) == ["Notice", "Notice", "b", "c"]
    await client.delete(KEYS.journal("damaged"), KEYS.head("damaged"))


async def test_only_wanted_channels_are_read(redis: Redis) -> None:
    """A wildcard stands for the channels under it; an unknown name is told."""
    for channel in ("news.sport", "newspaper", ROOM):
        await react(redis, channel, channel=channel)

    assert values(await past(redis, START, "news.*")) == ["news.sport"]
    assert values(await past(redis, START, ROOM)) == [ROOM]
    assert await past(redis, START, "nowhere") == [
        Notice("nowhere: no worker has counted this channel yet.")
    ]


async def test_many_channels_are_read_in_parts(redis: Redis) -> None:
    """Each where it begins."""
    channels = [f"room-{number:03}" for number in range(450)]
    for channel in channels:
        await react(redis, channel, channel=channel)

    starts = [start async for start in Journal(redis, KEYS).starts(channels, START)]

    assert [start.channel for start in starts] == channels
    assert {start.after for start in starts} == {START}
    assert not any(start.is_cut for start in starts)
