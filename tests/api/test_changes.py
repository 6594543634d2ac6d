"""The route of changes: what changes comes, and whoever comes again misses nothing, or is told."""

import asyncio
import json
from typing import Any, cast

import pytest
from redis.asyncio import Redis

from reaction_tally import AsyncTallyReader, Reset
from reaction_tally.keys import tally_field
from tests.api.served import Events, Served, served
from tests.client.copies import LAST, Copy
from tests.client.followers import KEYS, count_followers, positions, reaction
from tests.histories import BEN, CHANNEL, MESSAGE, added, removed
from tests.store.examples import apply
from tests.waiting import wait_until
from worker.api import hub, subscriber
from worker.api.subscriber import write
from worker.store.store import Store

OTHER = "other"


async def test_a_change_comes_with_its_position(api: Served, claimed: Redis, store: Store) -> None:
    """The count is absolute, and the id is the position in the journal."""
    events = await api.follow(CHANNEL)
    await apply(store, [added(1)])
    name, data = await events.next()

    now = (await positions(AsyncTallyReader(claimed), CHANNEL))[CHANNEL]
    assert name == "change"
    assert data == {
        "channel": CHANNEL,
        "message": MESSAGE,
        "type": "reaction",
        "value": "👍",
        "count": 1,
        "position": now,
    }
    assert events.last_id == now
    events.leave()


async def test_only_wanted_channels_come(api: Served, store: Store) -> None:
    """Without names, all of them come, new ones, too."""
    some, everything = await api.follow(CHANNEL, "third"), await api.follow()
    await apply(store, [added(1)], channel=OTHER)
    await apply(store, [added(1)])

    (_, first), (_, second) = await everything.next(), await everything.next()
    _, only = await some.next()
    assert {first["channel"], second["channel"]} == {OTHER, CHANNEL}
    assert only["channel"] == CHANNEL
    some.leave()
    everything.leave()


async def test_many_clients_have_one_subscription(
    api: Served, claimed: Redis, store: Store
) -> None:
    """Each gets every change."""
    clients = await asyncio.gather(*(api.follow(CHANNEL) for _ in range(30)))
    await wait_until(lambda: count_followers(claimed))
    await apply(store, [added(1)])

    found = [await client.next() for client in clients]

    assert {data["count"] for _, data in found} == {1}
    assert await count_followers(claimed) == 1
    for client in clients:
        client.leave()


@pytest.mark.parametrize("way", ["last_id", "since"])
async def test_a_client_that_comes_again_misses_nothing(
    api: Served, store: Store, way: str
) -> None:
    """What happened meanwhile comes first: of each tally the newest."""
    events = await api.follow(CHANNEL, OTHER)
    await apply(store, [added(1)])
    await events.next()
    events.leave()
    for number in range(250):
        await apply(store, [reaction(number, f"v{number % 3}")])
    await apply(store, [added(1)], channel=OTHER)

    again = await api.follow(OTHER, CHANNEL, **{way: events.last_id})

    found = [await again.next() for _ in range(4)]
    assert {(data["channel"], data["value"]): data["count"] for _, data in found} == {
        (CHANNEL, "v0"): 84,
        (CHANNEL, "v1"): 83,
        (CHANNEL, "v2"): 83,
        (OTHER, "👍"): 1,
    }
    again.leave()


async def test_a_client_of_all_channels_misses_nothing(api: Served, store: Store) -> None:
    """As long as the same process knows its id."""
    events = await api.follow()
    await apply(store, [added(1)])
    await events.next()
    events.leave()
    other = await api.follow()
    for number in range(5):
        await apply(store, [reaction(number)], channel=f"c{number}")
        await other.next()

    again = await api.follow(last_id=events.last_id)

    found = [await again.next() for _ in range(5)]
    assert [data["channel"] for _, data in found] == ["c0", "c1", "c2", "c3", "c4"]
    assert again.last_id == other.last_id
    for client in (again, other):
        client.leave()


@pytest.mark.parametrize("id", ["0badc0de-7", "canary", "1-1", "-", "0-" + "9" * 2_000])
async def test_an_unknown_id_of_all_channels_is_a_reset(api: Served, id: str) -> None:
    """Of every channel: the process that gave it has ended, or has forgotten it."""
    events = await api.follow(last_id=id)

    assert await events.next() == ("reset", {"channel": None, "position": None})
    events.leave()


async def test_more_than_is_kept_is_a_reset(
    claimed: Redis, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An id from before the oldest event that is kept is not known."""
    monkeypatch.setattr(hub, "KEPT", 3)
    async with served(claimed) as api:
        events = await api.follow()
        ids = []
        for number in range(5):
            await apply(store, [reaction(number)])
            await events.next()
            ids.append(events.last_id)
        lost, whole = await api.follow(last_id=ids[0]), await api.follow(last_id=ids[1])

        assert (await lost.next())[0] == "reset"
        assert [(await whole.next())[0] for _ in range(3)] == ["change"] * 3
        for client in (events, lost, whole):
            client.leave()


@pytest.mark.parametrize("id", ["canary", "1-1.2-2", "0badc0de-7", "99999999999999999999-0", "."])
async def test_an_unknown_id_of_a_channel_is_a_reset(
    api: Served, claimed: Redis, store: Store, id: str
) -> None:
    """With the position that later changes follow."""
    await apply(store, [added(1)])
    events = await api.follow(CHANNEL, last_id=id)

    now = (await positions(AsyncTallyReader(claimed), CHANNEL))[CHANNEL]
    assert await events.next() == ("reset", {"channel": CHANNEL, "position": now})
    assert events.last_id == now
    events.leave()


async def test_a_trimmed_journal_is_a_reset(api: Served, claimed: Redis, store: Store) -> None:
    """What was missed is gone from it."""
    events = await api.follow(CHANNEL)
    events.leave()
    await apply(store, [added(1)])
    await apply(store, [added(1, BEN)])
    await cast("Any", claimed).xtrim(KEYS.journal(CHANNEL), maxlen=1, approximate=False)

    again = await api.follow(CHANNEL, last_id=events.last_id)

    name, data = await again.next()
    assert (name, data["channel"]) == ("reset", CHANNEL)
    again.leave()


async def test_a_redis_that_goes_back_is_a_reset(
    api: Served, claimed: Redis, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For a client that is there, and for one that comes again."""
    monkeypatch.setattr("reaction_tally.changes.COMPARE_SECONDS", 0.05)
    redis = cast("Any", claimed)
    await apply(store, [added(1)])
    keys = [KEYS.journal(CHANNEL), KEYS.head(CHANNEL)]
    older = [await redis.dump(key) for key in keys]
    there, away = await api.follow(CHANNEL), await api.follow(CHANNEL)
    await apply(store, [added(1, BEN)])
    for client in (there, away):
        await client.next()
    away.leave()

    for key, copy in zip(keys, older, strict=True):
        await redis.restore(key, 86_400_000 if "journal" in key else 0, copy, replace=True)
    again = await api.follow(CHANNEL, last_id=away.last_id)

    assert (await there.next())[0] == "reset"
    assert (await again.next())[0] == "reset"
    for client in (there, again):
        client.leave()


async def test_a_client_that_missed_too_much_is_reset(
    api: Served, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page is read sooner than so many entries."""
    monkeypatch.setattr("worker.api.missed.MAX_ROUND_TRIPS", 1)
    monkeypatch.setattr("reaction_tally.following.ENTRIES", 5)
    events = await api.follow(CHANNEL)
    events.leave()
    for number in range(12):
        await apply(store, [reaction(number)])

    again = await api.follow(CHANNEL, last_id=events.last_id)

    assert (await again.next())[0] == "reset"
    await apply(store, [reaction(99)])
    while (await again.next())[1]["count"] != 13:
        pass  # the hub was behind
    again.leave()


async def test_the_end_of_a_message_has_no_value(api: Served, store: Store) -> None:
    """Every count of it is gone."""
    await apply(store, [added(1)])
    events = await api.follow(CHANNEL)
    await apply(store, [removed(1)])
    gone = await events.next()
    await apply(store, [added(5)])
    await events.next()
    await store.clear(CHANNEL)
    _, end = await events.next()

    assert gone[1]["count"] == 0
    assert (end["type"], end["value"], end["count"]) == (None, None, 0)
    events.leave()


async def test_a_copy_kept_by_events_is_exact(
    api: Served, claimed: Redis, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the moments at which the client loses its connection, and comes again."""
    reader = AsyncTallyReader(claimed)
    copy = Copy(CHANNEL)
    copy.read(await reader.page(CHANNEL, [MESSAGE]))
    last_id = copy.position
    writing = asyncio.create_task(write_much(store))
    breaks = 0

    while not copy.has(LAST):
        events = await api.follow(CHANNEL, last_id=last_id)
        for _ in range(7 + breaks % 5):
            item = await events.next_item()
            assert not isinstance(item, Reset)
            copy.take(item)
            if copy.has(LAST):
                break
        last_id = events.last_id
        events.leave()
        breaks += 1

    await writing
    page = await reader.page(CHANNEL, [MESSAGE])
    (message,) = page.messages.values()
    assert copy.tallies[MESSAGE] == {
        tally_field(each.type, each.value): each.count for each in message.reactions
    }
    assert copy.position == page.position
    assert breaks > 3


async def write_much(store: Store) -> None:
    """Let users come and go."""
    for number in range(300):
        await apply(store, [reaction(number, f"v{number % 7}")])
        if number % 3 == 0:
            await apply(store, [added(number + 10)])
            await apply(store, [removed(number + 10)])
    await apply(store, [reaction(1, LAST)])


@pytest.mark.parametrize(
    "query",
    [
        {"channel": ""},
        {"channel": ["room", "a.*"]},
        {"channel": "x" * 251},
        {"channel": [f"c{number}" for number in range(51)]},
    ],
)
async def test_a_wrong_channel_is_refused(api: Served, query: dict[str, Any]) -> None:
    """By its name, and no stream begins."""
    assert (await api.get("/v1/changes", query)).problem == (400, "channel")


async def test_a_stream_that_cannot_begin_is_a_503(
    api: Served, claimed: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody waits for a Redis without tallies."""
    monkeypatch.setattr("worker.api.changes.BEGIN_SECONDS", 0.2)
    await claimed.delete("tally:meta")

    some = await api.get("/v1/changes", {"channel": CHANNEL})
    everything = await api.get("/v1/changes")

    assert some.problem == everything.problem == (503, None)
    await cast("Any", claimed).hset("tally:meta", "schema", "1")
    monkeypatch.setattr("worker.api.changes.BEGIN_SECONDS", 60)
    (await api.follow(CHANNEL)).leave()


async def test_a_hub_that_fails_ends_its_clients(
    api: Served, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They come again with their ids, so nothing is missed."""
    events = await api.follow(CHANNEL)

    def fail(*_: object) -> bytes:
        raise ValueError("canary")

    with monkeypatch.context() as patched:
        patched.setattr(subscriber, "write", fail)
        await apply(store, [added(1)])
        await events.ended()
    again = await api.follow(CHANNEL, last_id=events.last_id)

    assert (await again.next())[1]["count"] == 1
    again.leave()


async def test_a_slow_client_is_cut_off(
    api: Served, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others go on."""
    monkeypatch.setattr("worker.web.streams.MAX_BUFFER", 500_000)
    slow, good = await api.follow(CHANNEL), await api.follow(CHANNEL)
    cast("asyncio.Transport", slow.writer.transport).pause_reading()

    big = "x" * 200_000
    for number in range(60):
        await apply(store, [reaction(number, f"{number}{big}")])
        await wait_for_value(good, f"{number}{big}")

    cast("asyncio.Transport", slow.writer.transport).resume_reading()
    await slow.ended()
    good.leave()


async def wait_for_value(events: Events, value: str) -> None:
    """Read until a value comes."""
    while (await events.next())[1]["value"] != value:
        pass


def test_events_are_one_line_each() -> None:
    """Whatever is in a value."""
    item = Reset("a\nb\r\x00", "1-1")
    written = write(item, "1-1").decode()

    assert written.count("\n") == 4
    assert json.loads(written.split("data: ")[1])["channel"] == item.channel
