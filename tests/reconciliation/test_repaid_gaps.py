"""A repair of many channels is a few entries in the log."""

import asyncio

from tests.bench.repairs import RepairBench, running
from tests.bench.virtual import Log, act, on_virtual_time, unheard
from tests.simulation.world import World
from worker.domain.position import Range
from worker.reconciliation.repaid_gaps import SUMMARY_SECONDS

CHANNELS = [f"room{number:03}" for number in range(300)]


@on_virtual_time
async def test_a_repair_of_many_channels_is_a_summary(world: World) -> None:
    """The summary has the number, the causes and some of the names."""
    unheard(world, CHANNELS, 1)
    repairs, log = RepairBench(world), Log()
    summaries = asyncio.create_task(repairs.reconcile.repaid.run())
    async with running(repairs):
        stretch = Range(None, str(world.state.time.now()))
        await repairs.mark(*CHANNELS)
        await repairs.queue.request(CHANNELS, stretch)
        await repairs.are_repaired(*CHANNELS)
        await asyncio.sleep(SUMMARY_SECONDS)
    summaries.cancel()
    await asyncio.gather(summaries, return_exceptions=True)

    summed = [entry for entry in log if entry["event"] == "gap_repaid"]
    assert sum(entry["channels"] for entry in summed) == len(CHANNELS)
    assert sum(entry["causes"]["overflow"] for entry in summed) == len(CHANNELS)
    assert summed[0]["examples"][0] in CHANNELS
    assert len(summed) < 10
    loud = [entry for entry in log if entry["level"] != "debug"]
    assert loud == summed


@on_virtual_time
async def test_a_stop_logs_the_rest(world: World) -> None:
    """What was repaid within the last minute is no secret."""
    repairs, log = RepairBench(world), Log()
    repaid = repairs.reconcile.repaid
    summaries = asyncio.create_task(repaid.run())
    repaid.note("room", ["overflow"])
    await asyncio.sleep(1)
    repaid.note("hall", ["overflow"])
    summaries.cancel()
    await asyncio.gather(summaries, return_exceptions=True)

    summed = [entry for entry in log if entry["event"] == "gap_repaid"]
    assert [entry["examples"] for entry in summed] == [["room"], ["hall"]]


@on_virtual_time
async def test_a_report_has_no_empty_facts(world: World) -> None:
    """A reconcile that went well has no failure and no reason; what it added is at info."""
    act(world, 3600)
    repairs, log = RepairBench(world), Log()
    await repairs.tables.channels.add(["room"])
    await repairs.reconcile.channel("room", Range())
    await repairs.reconcile.channel("room", Range())

    first, second = log.of("reconcile_ends")
    assert "" not in first.values()
    assert not {"failure", "reason", "exit_code"} & first.keys()
    assert (first["added"], first["level"], second["level"]) == (1, "info", "debug")
