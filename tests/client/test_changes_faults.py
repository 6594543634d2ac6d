"""What ``changes`` does if hints, entries, keys or connections are lost."""

import asyncio
import re
from contextlib import aclosing
from itertools import count
from pathlib import Path
from typing import Any, Final, cast

import pytest
from redis.asyncio import Redis

from reaction_tally import (
    AsyncTallyReader,
    Change,
    NotTheseTalliesError,
    RedisUnavailableError,
    Reset,
    TallyReader,
)
from reaction_tally.journal import stream_order
from tests.claimed import claim
from tests.client.copies import LAST
from tests.client.followers import KEYS, collect, positions, reaction, subscribed
from tests.client.in_thread import InThread
from tests.histories import CHANNEL, MESSAGE
from tests.redis_server import MortalServer, RedisServer, free_port
from tests.store.examples import apply
from tests.store.random_channel import RandomChannel
from tests.waiting import wait_until
from worker.store.connection import connect
from worker.store.store import Store

README: Final = Path(__file__).parents[2] / "client" / "README.md"


async def test_a_trimmed_journal_resets(claimed: Redis, store: Store, reader: Any) -> None:
    """With the position to go on from. Nothing else of the channel is told before it."""
    await apply(store, [reaction(0)])
    since = await positions(reader, CHANNEL)
    for number in range(1, 6):
        await apply(store, [reaction(number)])
    await cast("Any", claimed).xtrim(KEYS.journal(CHANNEL), maxlen=2, approximate=False)

    (reset,) = await collect(reader, 1, [CHANNEL], since=since)
    await apply(store, [reaction(6)])
    (change,) = await collect(reader, 1, [CHANNEL], since={CHANNEL: reset.position})

    assert isinstance(reset, Reset)
    assert (change.channel, change.count) == (CHANNEL, 7)


@pytest.mark.usefixtures("often")
async def test_a_loss_just_after_a_reset_resets_again(claimed: Redis, reader: Any) -> None:
    """The program's page may be newer than the reset. So it says where it goes on."""
    channel = RandomChannel(claimed)
    await channel.write(reaction(0))
    copy = await channel.copy()
    since = {CHANNEL: "1-0"}
    async with aclosing(reader.changes([CHANNEL], since=since)) as changes:
        reset = await anext(changes)
        await channel.write(reaction(1))
        reset.continue_from((await reader.page(CHANNEL, [MESSAGE])).position)
        await channel.go_back(copy)
        again = await anext(changes)

    assert again == Reset(CHANNEL, await channel.head())


@pytest.mark.usefixtures("often")
async def test_an_emptied_redis_resets_when_a_worker_has_claimed_it(
    claimed: Redis, store: Store, reader: Any
) -> None:
    """Until then a page could not be read."""
    await apply(store, [reaction(0)])
    since = await positions(reader, CHANNEL)
    collecting = asyncio.create_task(collect(reader, 2, [CHANNEL], since=since))
    await subscribed(claimed)
    await claimed.flushall()
    await apply(store, [reaction(0)])
    before = await cast("Any", claimed).get(KEYS.head(CHANNEL))
    await claim(claimed)
    numbers = count(1)

    async def is_collected() -> bool:
        await apply(store, [reaction(next(numbers))])
        return collecting.done()

    await wait_until(is_collected)
    reset, change = await collecting
    assert isinstance(reset, Reset)
    assert isinstance(change, Change)
    assert stream_order(before) <= stream_order(reset.position) < stream_order(change.position)


async def test_an_entry_of_an_unknown_kind_resets(
    claimed: Redis, store: Store, reader: Any
) -> None:
    """Nobody knows what it has changed."""
    await apply(store, [reaction(1)])
    since = await positions(reader, CHANNEL)
    entry = {"after": since[CHANNEL], "origin": "live", "0": "not ours"}
    head = await cast("Any", claimed).xadd(KEYS.journal(CHANNEL), entry)
    await cast("Any", claimed).set(KEYS.head(CHANNEL), head)
    await claimed.expire(KEYS.journal(CHANNEL), 60)

    assert await collect(reader, 1, [CHANNEL], since=since) == [Reset(CHANNEL, head)]


@pytest.mark.usefixtures("often")
@pytest.mark.parametrize(("kind", "item"), [("journal", Change), ("head", Reset)])
async def test_a_damaged_channel_holds_no_other_up(
    claimed: Redis, store: Store, reader: Any, kind: str, item: type
) -> None:
    """When its key is mended, its changes come. Without its head it is reset."""
    names, redis = [CHANNEL, "hall"], cast("Any", claimed)
    for name in names:
        await apply(store, [reaction(1, channel=name)], channel=name)
    since = await positions(reader, *names)
    key = {"journal": KEYS.journal, "head": KEYS.head}[kind](CHANNEL)
    await redis.delete(key)
    await redis.hset(key, "not", "ours")

    for number in range(2, 5):
        await apply(store, [reaction(number, channel="hall")], channel="hall")
        (change,) = await collect(reader, 1, names, since=since)
        assert (change.channel, change.count) == ("hall", number)
        since["hall"] = change.position
    collecting = asyncio.create_task(collect(reader, 1, names, since=since))
    await subscribed(claimed)
    await redis.delete(key)
    await apply(store, [reaction(2)])

    (found,) = await collecting
    assert (found.channel, type(found)) == (CHANNEL, item)


@pytest.mark.usefixtures("often")
async def test_a_cut_connection_loses_nothing(claimed: Redis, store: Store, reader: Any) -> None:
    """What happens meanwhile is told afterwards, in the same iterator."""
    since = await positions(reader, CHANNEL)
    collecting = asyncio.create_task(
        collect(reader, lambda item: item.value == LAST, [CHANNEL], since=since)
    )
    for number in range(10):
        await subscribed(claimed)
        await apply(store, [reaction(number)])
        await cast("Any", claimed).client_kill_filter(_type="pubsub")
        await apply(store, [reaction(number, "other")])
    await apply(store, [reaction(0, LAST)])

    items = await collecting
    counts = {item.value: item.count for item in items}
    assert counts == {"👍": 10, "other": 10, LAST: 1}


@pytest.mark.usefixtures("often")
async def test_a_lost_hint_delays_a_change(
    claimed: Redis, valkey: RedisServer, reader: Any
) -> None:
    """By a few seconds. For example, the worker's user of Redis may not publish."""
    await cast("Any", claimed).execute_command(
        "ACL", "SETUSER", "mute", "reset", "on", ">secret", "~tally:*", "+@all", "-publish"
    )
    since = await positions(reader, CHANNEL)
    collecting = asyncio.create_task(collect(reader, 1, [CHANNEL], since=since))
    await subscribed(claimed)
    async with connect(valkey.url.replace("redis://", "redis://mute:secret@")) as redis:
        await apply(Store(redis, KEYS), [reaction(1)])

    (change,) = await collecting
    await cast("Any", claimed).execute_command("ACL", "DELUSER", "mute")
    assert change.count == 1


@pytest.mark.parametrize("kind", [TallyReader, AsyncTallyReader])
async def test_the_permissions_of_the_readme_are_enough(
    claimed: Redis, store: Store, valkey: RedisServer, kind: Any
) -> None:
    """For a page, and for changes at once."""
    parts = re.findall(r"`(~tally:[^`]*|&tally:changed [^`]*)`", README.read_text("utf-8"))
    rules = " ".join(parts).split(" ")
    redis = cast("Any", claimed)
    await redis.execute_command("ACL", "SETUSER", "reads", "reset", "on", ">it", *rules)
    await redis.execute_command("ACL", "LOG", "RESET")
    reader = kind.from_url(valkey.url.replace("redis://", "redis://reads:it@"))
    reader = InThread(reader) if kind is TallyReader else reader
    page = await reader.page(CHANNEL, [MESSAGE])
    collecting = asyncio.create_task(collect(reader, 1, since={CHANNEL: page.position}))
    await subscribed(claimed)
    await apply(store, [reaction(1)])

    (change,) = await collecting
    await reader.close()
    await redis.execute_command("ACL", "DELUSER", "reads")
    assert change.count == 1


@pytest.mark.usefixtures("often")
@pytest.mark.parametrize("kind", [TallyReader, AsyncTallyReader])
async def test_a_user_who_may_not_subscribe_follows_later(
    claimed: Redis, store: Store, valkey: RedisServer, kind: Any
) -> None:
    """The heads are enough. No permission is needed but those of a page."""
    await cast("Any", claimed).execute_command(
        *("ACL", "SETUSER", "reads", "reset", "on", ">secret", "~tally:*"),
        *("resetchannels", "+@read", "-subscribe"),
    )
    reader = kind.from_url(valkey.url.replace("redis://", "redis://reads:secret@"))
    reader = InThread(reader) if kind is TallyReader else reader
    await cast("Any", claimed).sadd(KEYS.channels, CHANNEL, "hall")
    collecting = asyncio.create_task(collect(reader, 2, since={}))
    for channel in (CHANNEL, "hall"):
        await apply(store, [reaction(1, channel=channel)], channel=channel)

    items = await collecting
    await reader.close()
    await cast("Any", claimed).execute_command("ACL", "DELUSER", "reads")
    assert {item.channel for item in items} == {CHANNEL, "hall"}


@pytest.mark.usefixtures("often")
async def test_a_redis_that_is_away_is_waited_for(tmp_path: Path) -> None:
    """As long as was said. At first it must be there."""
    url = f"redis://127.0.0.1:{free_port()}"
    async with AsyncTallyReader.from_url(url) as reader:
        with pytest.raises(RedisUnavailableError, match="does not answer"):
            await collect(reader, 1, [CHANNEL])
    server = MortalServer(tmp_path)
    async with connect(server.url) as redis, AsyncTallyReader.from_url(server.url) as reader:
        await claim(redis)
        short = asyncio.create_task(collect(reader, 1, [CHANNEL], away_seconds=0.05))
        collecting = asyncio.create_task(collect(reader, 1, [CHANNEL]))
        await subscribed(redis, 2)
        await server.kill()
        with pytest.raises(RedisUnavailableError, match="does not answer"):
            await short
        await server.revive()
        await apply(Store(redis, KEYS), [reaction(1)])
        (change,) = await collecting
    server.stop()
    assert change.count == 1


@pytest.mark.usefixtures("often")
async def test_another_schema_ends_it(claimed: Redis, reader: Any) -> None:
    """Nothing of it could be read."""
    collecting = asyncio.create_task(collect(reader, 1, [CHANNEL], away_seconds=0))
    await subscribed(claimed)
    await cast("Any", claimed).hset(KEYS.meta, "schema", "2")
    with pytest.raises(NotTheseTalliesError, match="schema 2"):
        await collecting
    with pytest.raises(NotTheseTalliesError, match="schema 2"):
        await collect(reader, 1)
