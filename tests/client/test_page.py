"""``page``: the reactions to many messages, at one instant, in one round trip."""

import asyncio
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any, Final, cast

import pytest
from msgspec.structs import replace
from redis.asyncio import Redis

from reaction_tally import AsyncTallyReader, Reaction, TallyReadError
from reaction_tally.keys import Keys
from tests.claimed import claim
from tests.client.readers import Readers
from tests.configured_server import ConfiguredServer
from tests.histories import ANA, CHANNEL, MESSAGE, added, at, removed
from tests.redis_server import RedisServer, server_program
from tests.store.examples import apply
from tests.store.random_channel import RandomChannel
from worker.domain.action import Added, Identity
from worker.store.batch import batched
from worker.store.cursors import Cursors
from worker.store.heartbeat import IN_USE_SECONDS
from worker.store.store import Store

KEYS: Final = Keys()
HOSTILE: Final = Identity(CHANNEL, "1234567890", "re:act%3A{}", "a:b\n{c}%\0", "ü:1")


def reacted(place: int, value: str, user: str, type: str = "reaction") -> Added:
    """Return an addition to the message."""
    return added(place, Identity(CHANNEL, MESSAGE, type, value, user))


async def test_a_page_has_all_that_a_chat_screen_needs(claimed: Redis, reader: Any) -> None:
    """Most first, then first seen; mine, and since when; the first names, and whether more are."""
    await apply(
        Store(claimed, KEYS),
        [
            *(reacted(3, "🎉", "cem"), reacted(1, "👍", "ana"), reacted(2, "👍", "ben")),
            *(reacted(4, "🎉", "ben"), reacted(1, "🚀", "dan"), reacted(9, "👍", "eve")),
        ],
    )

    page = await reader.page(CHANNEL, [MESSAGE, 5], me="ben", names=2)

    thumbs, party, rocket = page.messages[MESSAGE].reactions
    assert thumbs == Reaction(
        type="reaction",
        value="👍",
        count=3,
        mine=True,
        mine_at=at(2),
        first_at=at(1),
        last_at=at(9),
        names=("ana", "ben"),
    )
    assert (party.value, party.count, party.mine_at, party.names) == (
        *("🎉", 2, at(4)),
        ("cem", "ben"),
    )
    assert (rocket.value, rocket.mine, rocket.mine_at) == ("🚀", False, None)
    assert [reaction.more for reaction in (thumbs, party, rocket)] == [True, False, False]
    assert page.messages[MESSAGE].total == 6
    assert list(page.messages) == [MESSAGE, "5"]
    assert page.messages["5"].reactions == ()


@pytest.mark.parametrize("names", [0, 1])
@pytest.mark.parametrize("count", [3, 600])
async def test_reactions_as_frequent_as_others_come_by_value(
    claimed: Redis, reader: Any, names: int, count: int
) -> None:
    """Also those of a message with so many values that Redis keeps its counts in no order."""
    values = [f"v{number:03}" for number in range(count)]
    events = [reacted(1, value, "ana") for value in reversed(values)]
    for part in batched(events, 250):
        await apply(Store(claimed, KEYS), part)
    await apply(Store(claimed, KEYS), [reacted(5, values[1], "ben"), reacted(6, values[2], "ben")])
    await apply(Store(claimed, KEYS), [reacted(7, values[1], "ana", "vote")])

    page = await reader.page(CHANNEL, [MESSAGE], names=names)

    first, second, *others = page.messages[MESSAGE].reactions
    assert [(each.value, each.count) for each in (first, second)] == [
        (values[1], 2),
        (values[2], 2),
    ]
    assert [(each.value, each.type) for each in others] == [
        (values[0], "reaction"),
        (values[1], "vote"),
        *[(value, "reaction") for value in values[3:]],
    ]
    encoding = await claimed.object("ENCODING", KEYS.counts(CHANNEL, MESSAGE))
    assert (encoding == "hashtable") == (count == 600)


async def test_a_page_costs_one_round_trip(
    claimed: Redis, valkey: RedisServer, reader: Any
) -> None:
    """It is one script, which reads only; the schema is asked for beside it."""
    await apply(Store(claimed, KEYS), [added(1), added(1, HOSTILE)])
    messages = [MESSAGE, *map(str, range(99))]
    await reader.page(CHANNEL, messages)  # Redis learns the script
    before = await claimed.dbsize()
    await claimed.config_resetstat()

    await reader.page(CHANNEL, messages, me="ana", names=3)

    stats = await claimed.info("commandstats")
    assert (stats["cmdstat_evalsha"]["calls"], stats["cmdstat_hgetall"]["calls"]) == (1, 101)
    assert "cmdstat_eval" not in stats
    assert await claimed.dbsize() == before


async def test_types_are_kept_apart(claimed: Redis, reader: Any) -> None:
    """A read receipt is no reaction."""
    await apply(
        Store(claimed, KEYS),
        [added(1), reacted(1, "read", "ben", "receipt"), added(1, HOSTILE)],
    )

    page = await reader.page(CHANNEL, [MESSAGE], types=["reaction"])
    both = await reader.page(CHANNEL, [MESSAGE, HOSTILE.message_timetoken])
    odd = await reader.page(CHANNEL, [HOSTILE.message_timetoken], types=[HOSTILE.type], names=1)

    assert page.messages[MESSAGE].counts == {"reaction": {"👍": 1}}
    assert both.messages[MESSAGE].counts == {"reaction": {"👍": 1}, "receipt": {"read": 1}}
    (reaction,) = odd.messages[HOSTILE.message_timetoken].reactions
    assert (reaction.type, reaction.value) == (HOSTILE.type, HOSTILE.value)
    assert reaction.names == (HOSTILE.uuid,)


async def test_a_page_says_whether_its_channel_is_in_doubt(claimed: Redis, reader: Any) -> None:
    """While a repair is owed. ``in_doubt`` tells it of many channels."""
    await apply(Store(claimed, KEYS), [added(1)])
    before = await reader.page(CHANNEL, [MESSAGE])
    await cast("Any", claimed).hset(KEYS.owed(CHANNEL), "overflow", "1")
    page = await reader.page(CHANNEL, [MESSAGE])

    assert (before.in_doubt, page.in_doubt) == (False, True)
    assert await reader.in_doubt([CHANNEL, "hall"]) == {CHANNEL}
    assert page.position == await cast("Any", claimed).get(KEYS.head(CHANNEL))


async def test_a_reader_knows_how_long_ago_a_worker_lived(claimed: Redis, reader: Any) -> None:
    """Nobody, a worker that runs, one that was stopped."""
    cursors = Cursors(claimed, KEYS)
    never = await reader.heartbeat_age()
    await cursors.register("a", [CHANNEL])
    alive = await reader.heartbeat_age()
    await cursors.end_heartbeats()
    stopped = await reader.heartbeat_age()

    assert never is None
    assert 0 <= alive < IN_USE_SECONDS <= stopped < 2 * IN_USE_SECONDS


@pytest.mark.parametrize("count", [100, 8_500])
async def test_a_message_with_many_values_is_read_in_parts(
    claimed: Redis, reader: Any, count: int
) -> None:
    """Lua cannot pass so many arguments at once."""
    events = [reacted(place, f"v{place}", "ana") for place in range(count)]
    for part in batched(events, 250):
        await apply(Store(claimed, KEYS), part)

    page = await reader.page(CHANNEL, [MESSAGE], me="ana")

    reactions = page.messages[MESSAGE].reactions
    assert len(reactions) == page.messages[MESSAGE].total == count
    assert all(reaction.mine for reaction in reactions)
    assert {reaction.mine_at for reaction in reactions} == {at(place) for place in range(count)}


async def test_scores_are_of_all_actions(claimed: Redis, reader: Any) -> None:
    """A value without a weight counts nothing. A number is its own weight in an average."""
    places = enumerate(["up", "up", "down", "4", "5", "5"])
    await apply(Store(claimed, KEYS), [reacted(1, value, f"u{place}") for place, value in places])

    message = (await reader.page(CHANNEL, [MESSAGE])).messages[MESSAGE]

    assert message.score({"up": 1, "down": -1}) == 1
    assert message.average() == pytest.approx(14 / 3)
    assert message.average({"up": 1, "down": -1}) == pytest.approx(1 / 3)
    assert message.average({"left": 1}) is None


async def test_a_damaged_key_is_named(claimed: Redis, reader: Any) -> None:
    """The error says what Redis says; no traceback of a script."""
    await cast("Any", claimed).set(KEYS.counts(CHANNEL, MESSAGE), "not ours")
    await claimed.expire(KEYS.counts(CHANNEL, MESSAGE), 60)

    with pytest.raises(TallyReadError, match="WRONGTYPE"):
        await reader.page(CHANNEL, [MESSAGE])


@pytest.mark.parametrize("seed", range(5))
async def test_who_is_script_refused_reads_the_same_in_steps(
    claimed: Redis, readers: Readers, seed: int
) -> None:
    """Whatever has happened to the channel."""
    channel, random = RandomChannel(claimed, seed), Random(seed)
    for _ in range(40):
        await channel.write()
        await readers.random_page(random)


@pytest.mark.parametrize("hidden", ["EVALSHA", "EVAL"])
async def test_a_server_that_hides_scripts_is_read_in_steps(tmp_path: Path, hidden: str) -> None:
    """Some rename such commands, so that nobody runs them."""
    configuration = tmp_path / "redis.conf"
    configuration.write_text(f'rename-command {hidden} ""\n')
    with ConfiguredServer(server_program(), configuration) as server:
        async with (
            Redis.from_url(server.url) as redis,
            AsyncTallyReader.from_url(server.url) as reader,
        ):
            await claim(redis)
            await cast("Any", redis).hset(KEYS.counts(CHANNEL, MESSAGE), "reaction:👍", 1)
            await cast("Any", redis).hset(KEYS.actions(CHANNEL, MESSAGE), "reaction:👍:ana", at(1))

            page = await reader.page(CHANNEL, [MESSAGE], names=1)

    (reaction,) = page.messages[MESSAGE].reactions
    assert (reaction.count, reaction.names) == (1, ("ana",))


@pytest.mark.parametrize("kind", ["script", "steps"])
async def test_a_page_is_of_one_instant(claimed: Redis, readers: Readers, kind: str) -> None:
    """One user moves a reaction between two messages, so their total is always one."""
    reader = readers.script if kind == "script" else readers.steps
    here, there = (replace(ANA, message_timetoken=each) for each in ("1", "2"))
    store = Store(claimed, KEYS)
    await apply(store, [added(1, here)])
    is_over = asyncio.Event()

    async def move() -> None:
        place = 1
        while not is_over.is_set():
            source, target = (here, there) if place % 2 else (there, here)
            await apply(store, [removed(place, source), added(place + 1, target)])
            place += 1

    async def look() -> set[tuple[int, int]]:
        totals = set()
        for _ in range(200):
            page = await reader.page(CHANNEL, ["1", "2"], names=1, me="ana")
            found = [reaction for each in page.messages.values() for reaction in each.reactions]
            assert [(it.count, it.names, it.mine) for it in found] == [(1, ("ana",), True)]
            totals.add(tuple(each.total for each in page.messages.values()))
        is_over.set()
        return cast("set[tuple[int, int]]", totals)

    _, totals = await asyncio.gather(move(), look())
    assert totals == {(0, 1), (1, 0)}


async def test_the_script_is_sent_again_if_redis_forgets_it(claimed: Redis, reader: Any) -> None:
    """After a restart, a failover or SCRIPT FLUSH."""
    await apply(Store(claimed, KEYS), [added(1)])
    await claimed.script_flush()

    assert (await reader.page(CHANNEL, [MESSAGE])).messages[MESSAGE].total == 1
    assert (await reader.page(CHANNEL, [MESSAGE])).messages[MESSAGE].total == 1


async def test_recent_messages_come_first(claimed: Redis, reader: Any) -> None:
    """By the time of their newest event. A message whose counts reached zero is among them."""
    channels = ["hall", CHANNEL]
    await cast("Any", claimed).sadd(KEYS.channels, *channels)
    for place, message in enumerate(["11", "33", "22"]):
        event = added(1 + 10_000 * place, replace(ANA, message_timetoken=message))
        await apply(Store(claimed, KEYS), [event])

    recent = await reader.recent(CHANNEL)

    assert [message.timetoken for message in recent] == ["22", "33", "11"]
    assert recent[0].changed_at == int(at(20_001)) // 10_000
    assert await reader.recent(CHANNEL, limit=2) == recent[:2]
    with pytest.raises(ValueError, match="1 or more"):
        await reader.recent(CHANNEL, limit=0)
    assert await reader.channels() == set(channels)


async def test_channels_are_read_in_parts(claimed: Redis, reader: Any) -> None:
    """However many there are."""
    names = [f"room-{number}" for number in range(3_000)]
    for part in batched(names, 500):
        await cast("Any", claimed).sadd(KEYS.channels, *part)

    assert await reader.channels() == set(names)
    assert set(islice(names, 3)) < await reader.channels()


@pytest.mark.parametrize("timetoken", [True, 1.5, None])
async def test_a_malformed_timetoken_is_refused(reader: Any, timetoken: object) -> None:
    """A float, for example, has lost its last digits."""
    with pytest.raises(TypeError, match="message timetoken"):
        await reader.get(CHANNEL, timetoken)
    with pytest.raises(TypeError, match="message timetoken"):
        await reader.page(CHANNEL, [timetoken])
    for read in (reader.page, reader.get_many):
        with pytest.raises(TypeError, match="are a list"):
            await read(CHANNEL, MESSAGE)
    with pytest.raises(TypeError, match="types are a list"):
        await reader.page(CHANNEL, [MESSAGE], types="reaction")
