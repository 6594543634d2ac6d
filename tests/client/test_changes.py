"""``changes``: every change of a count, absolute, with a position to go on from."""

import asyncio
import dataclasses
import re
from contextlib import aclosing, closing
from pathlib import Path
from textwrap import dedent
from typing import Any, Final, cast

import pytest
from redis.asyncio import Redis

from reaction_tally import AsyncTallyReader, Change, TallyReader
from reaction_tally.following import ENTRIES
from tests.client.followers import KEYS, collect, positions, reaction, subscribed
from tests.histories import BEN, CHANNEL, MESSAGE, added, removed
from tests.redis_server import RedisServer
from tests.store.examples import apply
from tests.waiting import wait_until
from worker.domain.action import Origin
from worker.store.batch import batched
from worker.store.connection import connect
from worker.store.store import Store

README: Final = Path(__file__).parents[2] / "client" / "README.md"


async def test_a_change_has_an_absolute_count(store: Store, reader: Any) -> None:
    """With the position after it. A count of 0 is a value that is gone."""
    since = await positions(reader, CHANNEL)
    await apply(store, [added(1), added(1, BEN)])
    (both,) = await collect(reader, 1, [CHANNEL], since=since)
    await apply(store, [removed(1), removed(1, BEN)])
    (gone,) = await collect(reader, 1, [CHANNEL], since={CHANNEL: both.position})

    now = await positions(reader, CHANNEL)
    assert both == Change(
        channel=CHANNEL,
        message_timetoken=MESSAGE,
        type="reaction",
        value="👍",
        count=2,
        position=both.position,
    )
    assert gone == dataclasses.replace(both, count=0, position=now[CHANNEL])


async def test_what_belongs_together_moves_the_position_once(store: Store, reader: Any) -> None:
    """At the last change. So a program that ends between them gets all of them again."""
    since = await positions(reader, CHANNEL)
    await apply(store, [reaction(number, f"v{number}") for number in range(3)])

    items = await collect(reader, 3, [CHANNEL], since=since)

    now = await positions(reader, CHANNEL)
    before = since[CHANNEL]
    assert [item.position for item in items] == [before, before, now[CHANNEL]]


async def test_without_positions_it_begins_now(claimed: Redis, store: Store, reader: Any) -> None:
    """What happened before is not told."""
    await apply(store, [reaction(1)])
    collecting = asyncio.create_task(collect(reader, 1, [CHANNEL]))
    await subscribed(claimed)
    await apply(store, [reaction(2)])

    (change,) = await collecting
    assert change.count == 2


def test_a_blocking_iterator_begins_when_it_is_made(
    valkey: RedisServer, claimed: Redis, store: Store
) -> None:
    """Not when the first change is asked for. Until then it has no connection."""
    with TallyReader.from_url(valkey.url) as reader, closing(reader.changes([CHANNEL])) as changes:
        asyncio.run(write_alone(valkey.url))
        assert next(changes).position


async def write_alone(url: str) -> None:
    """Write a reaction in an event loop of its own."""
    async with connect(url) as redis:
        await apply(Store(redis, KEYS), [reaction(1)])


async def test_several_changes_become_the_newest(claimed: Redis, store: Store, reader: Any) -> None:
    """While a program is slow. So memory is bounded by the number of tallies."""
    since = await positions(reader, CHANNEL)
    for number in range(2 * ENTRIES + 50):
        values = [f"v{number % 3}", "all"]
        await apply(store, [reaction(number, value) for value in values])

    items = await collect(reader, 4, [CHANNEL], since=since)

    counts = {item.value: item.count for item in items}
    assert counts == {"v0": 84, "v1": 83, "v2": 83, "all": 250}
    assert items[-1].position == (await positions(reader, CHANNEL))[CHANNEL]


async def test_a_slow_program_misses_nothing(claimed: Redis, store: Store, reader: Any) -> None:
    """What comes while it works on a change becomes one change of each tally."""
    since = await positions(reader, CHANNEL)
    await apply(store, [reaction(0)])
    async with aclosing(reader.changes([CHANNEL], since=since)) as changes:
        first = await anext(changes)
        for number in range(1, 400):
            await apply(store, [reaction(number)])
        second = await anext(changes)

    assert (first.count, second.count) == (1, 400)


async def test_an_expired_message_is_one_change(store: Store, reader: Any) -> None:
    """Type and value are empty: all counts of the message are gone."""
    since = await positions(reader, CHANNEL)
    await apply(store, [reaction(1), reaction(1, "other")])
    await store.clear(CHANNEL)

    (change,) = await collect(reader, 1, [CHANNEL], since=since)

    assert change.ends_message
    assert (change.message_timetoken, change.type, change.value) == (MESSAGE, "", "")
    assert change.count == 0


async def test_a_rebuilt_count_is_a_change(claimed: Redis, store: Store, reader: Any) -> None:
    """Like any other."""
    await apply(store, [reaction(1), reaction(2)])
    since = await positions(reader, CHANNEL)
    await cast("Any", claimed).delete(KEYS.counts(CHANNEL, MESSAGE))
    await store.rebuild(CHANNEL, [MESSAGE])

    (change,) = await collect(reader, 1, [CHANNEL], since=since)

    assert (change.value, change.count, change.ends_message) == ("👍", 2, False)


async def test_two_thousand_channels_are_followed_on_one_connection(
    claimed: Redis, store: Store, reader: Any
) -> None:
    """Whatever is written to them, and in one script call or several."""
    names = [f"room-{number}" for number in range(2_000)]
    collecting = asyncio.create_task(collect(reader, len(names), names))
    await subscribed(claimed)
    for part in batched(names, 250):
        batches = [(name, [reaction(1, channel=name)]) for name in part]
        await store.apply_all(batches, Origin.LIVE)

    items = await collecting

    assert sorted(item.channel for item in items) == sorted(names)


@pytest.mark.parametrize("has_hint", [True, False])
@pytest.mark.usefixtures("often")
async def test_new_channels_are_followed_from_their_first_change(
    claimed: Redis, store: Store, reader: Any, has_hint: bool
) -> None:
    """If no channels are named. Both the hint and the set of channels tell of them."""
    await cast("Any", claimed).sadd(KEYS.channels, "old")
    await apply(store, [reaction(1, channel="old")], channel="old")
    collecting = asyncio.create_task(collect(reader, 2))
    await subscribed(claimed)
    name = "new {room} %"
    if not has_hint:
        await cast("Any", claimed).client_kill_filter(_type="pubsub")
    await cast("Any", claimed).sadd(KEYS.channels, name)
    await apply(store, [reaction(1, channel=name)], channel=name)
    await apply(store, [reaction(2, channel="old")], channel="old")

    items = await collecting

    counts = {item.channel: item.count for item in items}
    assert counts == {name: 1, "old": 2}


async def test_all_channels_since_some_positions(claimed: Redis, store: Store, reader: Any) -> None:
    """Those that have no position are new to the program: they begin at their first change."""
    for name in (CHANNEL, "hall"):
        await cast("Any", claimed).sadd(KEYS.channels, name)
        await apply(store, [reaction(1, channel=name)], channel=name)
    since = await positions(reader, CHANNEL)
    await apply(store, [reaction(2)])

    items = await collect(reader, 2, since=since)

    counts = {item.channel: item.count for item in items}
    assert counts == {CHANNEL: 2, "hall": 1}


@pytest.mark.parametrize(
    ("channels", "since", "error"),
    [
        ("room", None, TypeError),
        ([], None, ValueError),
        (["room"], "0-0", TypeError),
        (["room"], {"room": "now"}, ValueError),
        (["room"], {"room": "0"}, ValueError),
        (["room"], {"hall": "0-0"}, ValueError),
        (["news.*"], None, ValueError),
    ],
)
@pytest.mark.parametrize("kind", [TallyReader, AsyncTallyReader])
def test_a_wrong_argument_is_refused_at_once(
    kind: Any, channels: Any, since: Any, error: type[Exception]
) -> None:
    """Before anything is asked of Redis."""
    with pytest.raises(error):
        kind.from_url("redis://localhost:1").changes(channels, since=since)


class EnoughError(Exception):
    """Ends the recipe, which never ends."""


async def test_the_recipe_of_the_readme_follows_a_page(
    claimed: Redis, store: Store, valkey: RedisServer
) -> None:
    """As it stands there."""
    text = README.read_text("utf-8").partition("## Follow changes")[2].partition("\n- ")[0]
    code = dedent("\n".join(re.findall(r"^(?:    .*)?$", text, re.MULTILINE)))
    shown: list[Any] = []

    def show(*values: Any) -> None:
        shown.append(values)
        if len(shown) == 2:
            raise EnoughError

    def follow() -> None:
        with TallyReader.from_url(valkey.url) as reader:
            exec(code, {"reader": reader, "messages": [MESSAGE], "print": show})  # noqa: S102

    following = asyncio.create_task(asyncio.to_thread(follow))
    await subscribed(claimed)
    await apply(store, [reaction(1)])
    await wait_until(lambda: shown)
    await apply(store, [reaction(2)])
    with pytest.raises(EnoughError):
        await following

    assert shown == [(MESSAGE, "👍", 1), (MESSAGE, "👍", 2)]
