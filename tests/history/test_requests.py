"""Backfills that a worker asks for, and the sweep."""

import time

from tests.bench.bench import KEYS, Bench
from tests.bench.replaying import FIRST, backfill, seed
from worker.applying.expiry import Expiry
from worker.domain.action import Added, Identity, Origin
from worker.domain.position import Range, from_seconds
from worker.store.progress import Progress
from worker.store.store import Store, Ttls

NOW = "17700000000000000"


async def test_a_request_survives_a_kill(bench: Bench) -> None:
    """It is in Redis when the request returns. The next worker replays it."""
    seed(bench, "room", 30)
    await bench.tables.channels.add(["room", "hall"])
    await backfill(bench).request(["room"], Range(None, NOW))

    for channel in ("room", "hall"):
        await backfill(bench).replay(channel, None)

    assert await bench.counts() == bench.emulator.truth()
    assert await bench.tables.progress.read("room") is None


async def test_a_request_is_bounded_to_its_stretch(bench: Bench) -> None:
    """The gap of a busy room does not cost its whole history."""
    seed(bench, "room", 1000)
    stretch = Range(str(FIRST + 1900), str(FIRST + 2000))
    await backfill(bench).request(["room"], stretch)

    assert await backfill(bench).replay("room", stretch) == 51  # pages overlap by one
    assert bench.emulator.requests["actions"] <= 2


async def test_a_request_keeps_progress_that_covers_it(bench: Bench) -> None:
    """A replay that resumes it reads newer actions, too. Narrower progress is replaced."""
    whole = Progress(str(FIRST + 40), str(FIRST + 20), actions=10)
    part = Progress(str(FIRST + 40), "5", str(FIRST))
    await bench.tables.progress.save(whole, "room")
    await bench.tables.progress.save(part, "hall")

    await backfill(bench).request(["room", "hall"], Range("7", NOW))

    assert await bench.tables.progress.read_all(["room", "hall"]) == {
        "room": whole,
        "hall": Progress(NOW, NOW, "7"),
    }


async def test_the_sweep_visits_all_channels(bench: Bench) -> None:
    """Old messages are deleted, young ones stay."""
    old, young = from_seconds(time.time() - 2 * 86400), from_seconds(time.time())
    for channel in ("room", "hall"):
        events = [
            Added(Identity(channel, at, "reaction", "👍", "ana"), young, young)
            for at in (old, young)
        ]
        await bench.applier.apply(events, Origin.LIVE, bench.clock())
    await bench.tables.channels.add(["room", "hall"])
    store = Store(bench.redis, KEYS, Ttls(retention_seconds=86400))

    assert await Expiry(store, bench.tables).run_once() == 2

    assert await bench.counts() == {
        channel: {young: {"reaction": {"👍": 1}}} for channel in ("room", "hall")
    }
