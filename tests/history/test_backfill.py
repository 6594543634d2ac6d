"""A backfill replays all of history, once, and resumes where it was interrupted."""

import asyncio
from dataclasses import replace

import pytest

from tests.bench.bench import SETTLE_SECONDS, Bench
from tests.bench.replaying import FIRST, Interruption, NotedProgress, backfill, seed
from worker.domain.position import Range
from worker.errors import ForbiddenError, PubNubError
from worker.source.history import PAGE_SIZE
from worker.store.pending_repairs import GapCause
from worker.store.progress import Progress


async def test_a_replay_equals_the_truth(bench: Bench) -> None:
    """Several channels are replayed side by side. No progress is left at the end."""
    for channel in ("room", "hall", "yard"):
        seed(bench, channel, 250)

    counts = await backfill(bench).run(["room", "hall", "yard", "empty"], Range())

    assert await bench.counts() == bench.emulator.truth()
    assert set(counts) == {"room", "hall", "yard", "empty"}
    assert all(counts[channel] >= 250 for channel in ("room", "hall", "yard"))
    assert await bench.tables.progress.read("room") is None
    assert await bench.tables.channels.all() == {"room", "hall", "yard", "empty"}


@pytest.mark.parametrize("fault", ["more", "tie", "server_error", "bad_json", "drop", "throttle"])
async def test_a_replay_survives_a_faulty_pubnub(bench: Bench, fault: str) -> None:
    """Short pages, ties and errors of all kinds are requested again."""
    seed(bench, "room", 400)
    bench.emulator.state.faults.replace({fault: 0.3})

    await backfill(bench, tries=None).run(["room"], Range())

    assert await bench.counts() == bench.emulator.truth()


async def test_only_the_wanted_range_is_replayed(bench: Bench) -> None:
    """``since`` is inclusive, ``until`` exclusive."""
    seed(bench, "room", 100)

    await backfill(bench).run(["room"], Range(since=str(FIRST + 2 * 40), until=str(FIRST + 2 * 60)))

    counts = await bench.counts()
    assert sum(n for message in counts["room"].values() for n in message["reaction"].values()) == 20


async def test_an_interrupted_replay_resumes(bench: Bench) -> None:
    """Applied pages are not requested again. What came since is."""
    seed(bench, "room", 1000)
    interruption = Interruption(800)
    first = asyncio.create_task(backfill(bench, watch=interruption).run(["room"], Range()))
    interruption.ends = first.cancel
    await asyncio.gather(first, return_exceptions=True)
    assert first.cancelled()
    done = bench.emulator.requests["actions"]
    assert await bench.tables.progress.read("room") is not None
    bench.emulator.state.add("room", "77", "reaction", "🆕", "new", published=False)

    await backfill(bench).run(["room"], Range())

    assert await bench.counts() == bench.emulator.truth()
    # Two or three pages are left, and one for newer actions. Two requests find each end.
    # One more may have been on its way.
    assert bench.emulator.requests["actions"] - done <= 1 + 3 + 1 + 2 + 2


async def test_progress_is_shown_and_costs_no_request(bench: Bench) -> None:
    """Actions only grow, and the date reached only goes back."""
    seed(bench, "room", 250)
    noted = NotedProgress()

    await backfill(bench, watch=noted).run(["room"], Range())

    actions = [progress.actions for progress in noted.reached["room"]]
    reached = [int(progress.next) for progress in noted.reached["room"]]
    assert actions == sorted(actions)
    assert actions[-1] >= 250
    assert reached == sorted(reached, reverse=True)
    assert bench.emulator.requests["actions"] <= 250 // (PAGE_SIZE - 1) + 3


async def test_a_wider_range_includes_saved_progress(bench: Bench) -> None:
    """The replay of a part does not stand for the whole."""
    seed(bench, "room", 10)
    await bench.tables.progress.save(Progress(str(FIRST + 5), str(FIRST + 1), str(FIRST)), "room")

    await backfill(bench).run(["room"], Range())

    assert await bench.counts() == bench.emulator.truth()


async def test_a_narrower_range_resumes_saved_progress(bench: Bench) -> None:
    """A replay of everything is pending, so a request for a part resumes it."""
    seed(bench, "room", 30)
    now = await bench.client.time()
    await bench.tables.progress.save(Progress(now, now), "room")

    await backfill(bench).run(["room"], Range(since=str(FIRST + 40)))

    assert await bench.counts() == bench.emulator.truth()
    assert await bench.tables.progress.read("room") is None


async def test_a_range_by_age_is_resumed(bench: Bench) -> None:
    """The same age is a later moment in a second run. It is the same replay."""
    seed(bench, "room", 30)
    now = await bench.client.time()
    await bench.tables.progress.save(
        Progress(now, str(FIRST + 40), str(FIRST + 10), actions=10), "room"
    )

    counts = await backfill(bench).run(["room"], Range(since=str(FIRST + 12)))

    # Five actions are left below the saved progress, and its edge; not the ten above it.
    assert 10 + 15 <= counts["room"] <= 10 + 15 + 3


async def test_a_refusal_ends_a_command(bench: Bench) -> None:
    """The other channels are replayed first."""
    seed(bench, "room", 10)
    bench.emulator.state.refuse(["hall"])

    with pytest.raises(ForbiddenError):
        await backfill(bench).run(["room", "hall"], Range())

    assert await bench.counts() == bench.emulator.truth()


async def test_a_failed_backfill_leaves_a_mark(bench: Bench) -> None:
    """A channel is known from then on, so nobody would take it for a new one.

    A backfill of everything takes its own mark away, and no other.
    """
    seed(bench, "room", 10)
    bench.emulator.state.refuse(["room"])
    with pytest.raises(ForbiddenError):
        await backfill(bench).run(["room"], Range())
    assert set(await bench.tables.pending.read("room")) == {GapCause.NEW_CHANNEL}

    bench.emulator.state.refuse([])
    await bench.tables.pending.mark(["hall"], GapCause.REDIS_WENT_BACK)
    await backfill(bench).run(["hall"], Range())
    assert set(await bench.tables.pending.read("hall")) == {GapCause.REDIS_WENT_BACK}


async def test_a_command_gives_up_after_its_tries(bench: Bench) -> None:
    """Failures in a row count."""
    bench.emulator.state.set_outage("html", ["actions"])

    with pytest.raises(PubNubError):
        await backfill(bench).run(["room"], Range())

    assert bench.emulator.requests["actions"] == 3


async def test_a_malformed_item_is_quarantined(bench: Bench) -> None:
    """It has a lone surrogate. Its neighbours count."""
    seed(bench, "room", 3)
    bench.emulator.state.add("room", "5", "reaction", "\ud83d", "ana", published=False)

    await backfill(bench).run(["room"], Range())

    reasons = {entry["reason"] for entry in await bench.quarantined()}
    assert reasons == {"value holds a lone surrogate, which UTF-8 cannot carry"}
    counts = await bench.counts()
    assert sum(n for message in counts["room"].values() for n in message["reaction"].values()) == 3


async def test_a_stale_page_is_read_again(bench: Bench) -> None:
    """The clock jumps between page and script, as when a machine sleeps."""
    seed(bench, "room", 10)
    apply, jumps = bench.applier.apply, iter([SETTLE_SECONDS + 1])

    async def slow_apply(*page):  # type: ignore[no-untyped-def]
        bench.clock.now += next(jumps, 0)
        return await apply(*page)

    bench.applier.apply = slow_apply  # type: ignore[method-assign]
    await backfill(bench).run(["room"], Range())

    assert await bench.counts() == bench.emulator.truth()


async def test_ignored_types_stay_out(bench: Bench) -> None:
    """The Chat SDK's own bookkeeping is no reaction."""
    bench.counted_types = replace(bench.counted_types, ignored=frozenset({"edited"}))
    bench.emulator.state.add("room", "5", "edited", "new text", "ana", published=False)
    bench.emulator.state.add("room", "5", "reaction", "👍", "ana", published=False)

    await backfill(bench).run(["room"], Range())

    assert await bench.counts() == {"room": {"5": {"reaction": {"👍": 1}}}}
