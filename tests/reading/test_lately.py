"""The last changes of a message: newest first, and a bounded part of the journal."""

from redis.asyncio import Redis

from reaction_tally.keys import Keys
from tests.histories import ANA, BEN, CHANNEL, MESSAGE, added, removed
from worker.domain.action import Event, Identity, Origin
from worker.reading.lately import LastChanges, last_changes
from worker.store.journal import PAGE, Journal
from worker.store.store import Store

KEYS = Keys()
ELSEWHERE = Identity(CHANNEL, "1234567890", "reaction", "👍", "ana")


async def apply(redis: Redis, *events: Event) -> None:
    """Apply a batch: one entry of the journal."""
    await Store(redis, KEYS).apply_all([(CHANNEL, events)], Origin.LIVE)


async def lately(redis: Redis, limit: int = 50) -> LastChanges:
    """Return the last changes of the message."""
    return await last_changes(Journal(redis, KEYS), CHANNEL, MESSAGE, limit)


def users(found: LastChanges) -> list[tuple[str, str]]:
    """Return event and user of each change."""
    return [(change.event, change.uuid) for _, change in found.changes]


async def test_the_newest_change_stands_first(redis: Redis) -> None:
    """Other messages are left out. All changes are there, and it says so."""
    await apply(redis, added(1, ANA), added(2, BEN))
    await apply(redis, added(1, ELSEWHERE))
    await apply(redis, removed(2, BEN))
    found = await lately(redis)

    assert users(found) == [("removed", "ben"), ("added", "ben"), ("added", "ana")]
    assert found.is_whole


async def test_what_is_left_out_is_said(redis: Redis) -> None:
    """Of more changes than wanted, and of a journal that no longer reaches back."""
    for number in range(1, 4):
        await apply(redis, added(number))
    found = await lately(redis, 2)
    assert (len(found.changes), found.is_whole) == (2, False)

    await redis.xtrim(KEYS.journal(CHANNEL), maxlen=1, approximate=False)
    found = await lately(redis)
    assert (len(found.changes), found.is_whole) == (1, False)
    assert found.reaches_back_to == found.changes[0][0].milliseconds


async def test_a_channel_without_a_journal_has_no_changes(redis: Redis) -> None:
    """Nothing is known, so nothing is whole."""
    found = await lately(redis)
    assert (found.changes, found.is_whole, found.reaches_back_to) == ((), False, None)


async def test_a_busy_room_is_not_read_to_its_beginning(redis: Redis) -> None:
    """Only so many entries are read, whatever the message is."""
    await apply(redis, added(1))
    for number in range(2 * PAGE):
        await apply(redis, added(number + 1, ELSEWHERE))
    journal = Journal(redis, KEYS)
    read = [entry async for entry in journal.newest_first(CHANNEL, PAGE)]

    assert len(read) == PAGE
    assert users(await lately(redis)) == [("added", "ana")]
