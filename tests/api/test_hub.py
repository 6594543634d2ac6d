"""The hub follows while somebody needs it, and an id never promises more than has come."""

from typing import Any, cast

import pytest
from redis.asyncio import Redis

from reaction_tally import Reset, TallyReadError
from reaction_tally.changes import Listen, Pause, Steps, advance
from tests.api.served import Served
from tests.client.followers import count_followers, reaction
from tests.histories import BEN, CHANNEL, added
from tests.source.passing_time import Passes, passing_time
from tests.store.examples import apply
from tests.waiting import wait_until
from worker.api import usage
from worker.api.hub import GATHER_SECONDS, KeptEvents, gathering
from worker.store.store import Store
from worker.telemetry import metrics

OTHER = "other"


@pytest.fixture
async def passes(monkeypatch: pytest.MonkeyPatch) -> Passes:
    """Let time pass."""
    return passing_time(monkeypatch)


def has_no_stream() -> bool:
    """Tell whether the server knows that every client has left."""
    return streams() == 0


def has_one_stream() -> bool:
    """Tell whether it knows that all but one have left."""
    return streams() == 1


def streams() -> float:
    """Return how many streams there are."""
    (metric,) = metrics.http_streams.collect()
    return metric.samples[0].value


async def test_the_hub_ends_after_its_last_client(
    api: Served, claimed: Redis, store: Store, passes: Passes
) -> None:
    """Redis is left alone then. Whoever comes later is told that an old id says nothing."""
    events = await api.follow()
    await apply(store, [added(1)])
    await events.next()
    events.leave()
    await wait_until(has_no_stream)
    assert await count_followers(claimed) == 1
    passes(usage.IDLE_SECONDS)

    async def has_ended() -> bool:
        return await count_followers(claimed) == 0

    await wait_until(has_ended)
    again = await api.follow(last_id=events.last_id)
    assert (await again.next())[0] == "reset"
    await apply(store, [added(1, BEN)])
    assert (await again.next())[1]["count"] == 2
    again.leave()


async def test_the_hub_stays_for_the_next_client(
    api: Served,
    claimed: Redis,
    store: Store,
    passes: Passes,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It knows what happened between both of them, and does not end while the second is there."""
    monkeypatch.setattr(usage, "IDLE_SECONDS", 3_600.0)
    events = await api.follow()
    events.leave()
    await wait_until(has_no_stream)
    passes(1_800)
    await apply(store, [added(1)])
    again = await api.follow(last_id=events.last_id)
    assert (await again.next())[1]["count"] == 1

    passes(3_600)
    await apply(store, [added(1, BEN)])

    assert (await again.next())[1]["count"] == 2
    assert await count_followers(claimed) == 1
    again.leave()


async def test_only_wanted_journals_are_read(api: Served, claimed: Redis, store: Store) -> None:
    """Whoever wants another one later gets each change since then, and what was missed before."""
    other = await api.follow(OTHER)
    other.leave()
    await wait_until(has_no_stream)
    events = await api.follow(CHANNEL)
    await cast("Any", claimed).config_resetstat()
    for number in range(2):
        await apply(store, [reaction(number, channel=OTHER)], channel=OTHER)
    await apply(store, [added(1)])
    await events.next()

    assert (await claimed.info("commandstats"))["cmdstat_xrange"]["calls"] == 1
    again = await api.follow(OTHER, last_id=other.last_id)
    await apply(store, [reaction(2, channel=OTHER)], channel=OTHER)
    assert [(await again.next())[1]["count"] for _ in range(2)] == [2, 3]
    for client in (events, again):
        client.leave()


async def test_all_journals_are_read_for_clients_of_all(
    api: Served, store: Store, passes: Passes
) -> None:
    """A minute after the last one its id is unknown, whoever else is there."""
    named, everything = await api.follow(CHANNEL), await api.follow()
    everything.leave()
    await wait_until(has_one_stream)
    await apply(store, [added(1)], channel=OTHER)
    first = await api.follow(last_id=everything.last_id)
    assert (await first.next())[1]["channel"] == OTHER
    first.leave()
    await wait_until(has_one_stream)
    passes(usage.IDLE_SECONDS)

    second = await api.follow(last_id=first.last_id)

    assert (await second.next())[0] == "reset"
    for client in (named, second):
        client.leave()


def test_hints_gather_before_they_are_taken() -> None:
    """Errors reach the follower, and so do answers."""
    answers: list[Any] = []

    def follower() -> Steps:
        while True:
            try:
                answers.append((yield Listen(5.0)))
            except TallyReadError as error:
                answers.append(error)

    steps = gathering(follower())
    error = TallyReadError("Redis is away")
    taken = [advance(steps, answer) for answer in (None, None, ["hint"], None, error, None)]

    assert taken == [Pause(GATHER_SECONDS), Listen(5.0)] * 3
    assert answers == [["hint"], error]


def test_an_id_says_no_more_than_has_come() -> None:
    """A client that loses its connection within what it missed misses nothing of it."""
    events = KeptEvents()
    known = events.id
    sent = [events.add(Reset(CHANNEL, f"{number}-0")) for number in range(3)]

    first, *missed = events.since(known)

    assert first == f"id: {known}\n\n".encode()
    assert missed == sent
    assert [event.split(b"\n")[0] for event in missed][-1] == f"id: {events.id}".encode()
