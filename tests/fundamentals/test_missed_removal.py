"""Missed removal: PubNub removes a reaction, and no event tells of it.

Events can be lost. PubNub's list no longer has the reaction; but a list may also lag behind. So a
reconcile reads it twice, some time (`TALLY_SETTLE_SECONDS`) apart, before it removes anything.
"""

from tests.worlds import World


async def test_a_reconcile_removes_what_is_gone(world: World) -> None:
    """`tally reconcile` compares the counts with PubNub's list, twice, and repairs them."""
    async with world.run_worker(TALLY_SETTLE_SECONDS="600"):
        reaction = world.react("👍", "ana")
        world.react("👍", "ben")
        await world.wait_for_counts({"👍": 2})
    world.take_back(reaction, "ana", published=False)

    world.state.advance(3600)  # an hour later, on PubNub's clock
    command = await world.run_command("reconcile", TALLY_SETTLE_SECONDS="0.1")

    assert command.code == 0, command.err
    assert await world.counts() == {"👍": 1}


async def test_a_worker_repairs_itself(world: World) -> None:
    """Nobody has to run the command: a worker reconciles each channel that is owed a repair."""
    async with world.run_worker(TALLY_SETTLE_SECONDS="600"):
        reaction = world.react("👍", "ana")
        world.react("👍", "ben")
        await world.wait_for_counts({"👍": 2})
    world.take_back(reaction, "ana", published=False)
    assert await world.owed("room") == {"first_start"}

    world.state.advance(3600)  # an hour later, on PubNub's clock
    async with world.run_worker(TALLY_SETTLE_SECONDS="0.1"):
        await world.wait_for_counts({"👍": 1})
