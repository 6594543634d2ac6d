"""Backfills that a worker asks for."""

from tests.bench.bench import Bench
from tests.bench.replaying import FIRST, backfill, seed
from worker.domain.position import Range
from worker.store.progress import Progress

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

    assert await backfill(bench).replay("room", stretch) == 50  # though pages overlap
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
