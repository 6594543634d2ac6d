"""The table of progress: how far each backfill has come."""

from worker.store.progress import Progress
from worker.store.tables import Tables


async def test_progress_is_kept_until_the_backfill_ends(tables: Tables) -> None:
    """It is read as it was saved."""
    progress = Progress(newest="9", next="5", oldest="3", actions=300)
    await tables.progress.save(progress, "room", "hall")
    assert await tables.progress.read_all(["room", "hall", "yard"]) == {
        "room": progress,
        "hall": progress,
    }

    assert await tables.progress.end("room") is False
    assert await tables.progress.read("room") is None
    assert await tables.progress.read("hall") == progress


async def test_a_second_backfill_follows_the_first(tables: Tables) -> None:
    """One script ends the first and saves the second: a kill cannot come between them."""
    await tables.progress.save(Progress(newest="9", next="5", oldest="3", actions=300), "room")
    await tables.progress.ask_again("12", "room")
    await tables.progress.save(Progress(newest="9", next="4", oldest="3", actions=400), "room")

    assert await tables.progress.end("room") is True
    assert await tables.progress.read("room") == Progress("12", "12")
    assert await tables.progress.end("room") is False
