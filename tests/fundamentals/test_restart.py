"""Restart: a worker stops, and the next one continues where it stopped."""

from tests.worlds import World

SETTINGS = {"TALLY_SETTLE_SECONDS": "600", "TALLY_RECONCILE_SECONDS": "1000000000"}
"""No repair falls into these tests."""


async def test_reactions_during_a_stop_are_counted(world: World) -> None:
    """PubNub keeps recent events. The next worker asks for everything after the saved cursor."""
    async with world.run_worker(**SETTINGS):
        reaction = world.react("👍", "ana")
        world.react("👍", "ben")
        await world.wait_for_counts({"👍": 2})

    world.take_back(reaction, "ana")
    world.react("🎉", "eve")

    async with world.run_worker(**SETTINGS):
        await world.wait_for_counts({"👍": 1, "🎉": 1})


async def test_a_restart_reads_no_history(world: World) -> None:
    """A saved cursor makes a restart cheap: nothing that was counted before is read again."""
    async with world.run_worker(**SETTINGS):
        world.react("👍", "ana")
        await world.settles()
    lists = world.emulator.requests["actions"]

    world.react("👍", "ben")
    async with world.run_worker(**SETTINGS):
        await world.wait_for_counts({"👍": 2})

    assert world.emulator.requests["actions"] == lists


async def test_a_stopped_worker_exits_with_zero(world: World) -> None:
    """A stop (SIGTERM) is no failure: the worker applies all it has read, and saves its cursor."""
    async with world.run_worker(**SETTINGS) as worker:
        world.react("👍", "ana")
        await world.wait_for_counts({"👍": 1})

    assert worker.work.result() == 0
    assert len(await world.cursors()) == 1
