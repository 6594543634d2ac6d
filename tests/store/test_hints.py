"""Scripts say on a Pub/Sub channel which channel has a new head. Nothing depends on it."""

from collections.abc import AsyncIterator
from typing import Any, Final, cast

import pytest
from msgspec.structs import replace
from redis.asyncio import Redis

from reaction_tally.keys import Keys, read_hint
from tests.histories import ANA, BEN, CHANNEL, MESSAGE, added, removed
from tests.store.examples import apply
from worker.domain.action import Origin
from worker.domain.position import Cursor
from worker.store.script_call import CursorSave
from worker.store.store import Store

KEYS: Final = Keys("my.tallies")
ODD: Final = "a {room} with 100 %"


END: Final = "no hint comes after this"


class Listener:
    """Who is subscribed."""

    def __init__(self, redis: Redis, subscription: Any) -> None:
        self._redis = redis
        self._subscription = subscription

    async def hints(self) -> list[str]:
        """Return the hints that were sent since the last time."""
        await self._redis.publish(KEYS.hints, END)
        found: list[str] = []
        while END not in found:
            message = await self._subscription.get_message(timeout=None)
            if message["type"] == "message":
                found.append(message["data"])
        return found[:-1]


@pytest.fixture
async def listener(redis: Redis) -> AsyncIterator[Listener]:
    """Subscribe to the hints of the namespace."""
    async with redis.pubsub() as subscription:
        await subscription.subscribe(KEYS.hints)
        listener = Listener(redis, subscription)
        assert await listener.hints() == []
        yield listener


async def head_of(redis: Redis, channel: str) -> str:
    """Return the id of a channel's last entry."""
    return str(await cast("Any", redis).get(KEYS.head(channel)))


async def test_each_channel_that_changes_gets_a_hint(redis: Redis, listener: Listener) -> None:
    """With its new head. The others get none."""
    store = Store(redis, KEYS)
    odd = [added(1, replace(each, channel=ODD)) for each in (ANA, BEN)]
    batches = [(CHANNEL, [added(1)]), (ODD, odd), ("hall", [])]
    await store.apply_all(batches, Origin.LIVE, [CursorSave("a", Cursor("17", 1))])

    hints = await listener.hints()

    encoded = "a %7Broom%7D with 100 %25"
    heads = [await head_of(redis, channel) for channel in (CHANNEL, ODD)]
    assert hints == [f"{CHANNEL} {heads[0]}", f"{encoded} {heads[1]}"]
    assert list(map(read_hint, hints)) == [(CHANNEL, heads[0]), (ODD, heads[1])]


async def test_what_changes_nothing_gives_no_hint(redis: Redis, listener: Listener) -> None:
    """A duplicate, and a cursor that is saved alone."""
    store = Store(redis, KEYS)
    await apply(store, [added(1)])
    assert len(await listener.hints()) == 1

    await apply(store, [added(1)])
    await store.apply_all([], Origin.LIVE, [CursorSave("a", Cursor("17", 1))])
    await store.rebuild(CHANNEL, [MESSAGE])

    assert await listener.hints() == []


async def test_a_rebuilt_count_and_a_sweep_give_a_hint(redis: Redis, listener: Listener) -> None:
    """Like every entry of a journal."""
    store = Store(redis, KEYS)
    odd = replace(ANA, channel=ODD)
    await apply(store, [added(1, odd)], channel=ODD)
    await cast("Any", redis).delete(KEYS.counts(ODD, MESSAGE))
    await store.rebuild(ODD, [MESSAGE])
    rebuilt = await head_of(redis, ODD)
    await store.clear(ODD)

    hints = await listener.hints()

    assert list(map(read_hint, hints))[1:] == [(ODD, rebuilt), (ODD, await head_of(redis, ODD))]


@pytest.mark.parametrize("hint", ["", "room", "room 5", "room -", "room 5-0 "])
def test_another_message_is_no_hint(hint: str) -> None:
    """Anybody may publish."""
    assert read_hint(hint) is None


async def test_the_keys_of_a_hint_are_those_of_its_channel(
    redis: Redis, listener: Listener
) -> None:
    """Without decoding anything: the channel stands as in the braces."""
    await apply(Store(redis, KEYS), [added(1, replace(ANA, channel=ODD))], channel=ODD)

    (hint,) = await listener.hints()

    channel, _, head = hint.rpartition(" ")
    assert await cast("Any", redis).get(f"my.tallies:{{{channel}}}:head") == head


async def test_removals_give_hints_too(redis: Redis, listener: Listener) -> None:
    """In the order of the changes."""
    store = Store(redis, KEYS)
    for event in (added(1), removed(1)):
        await apply(store, [event])

    (_, first), (_, second) = [read_hint(hint) or ("", "") for hint in await listener.hints()]
    assert first < second == await head_of(redis, CHANNEL)
