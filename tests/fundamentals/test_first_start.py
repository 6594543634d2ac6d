"""First start: a worker comes to channels that have a past, of which no event will ever tell."""

from tests.worlds import World


async def test_earlier_reactions_are_counted(world: World) -> None:
    """The worker reads PubNub's list of actions (a backfill) without being asked."""
    world.react("👍", "ana", published=False)
    world.react("👍", "ben", published=False)

    async with world.run_worker():
        await world.wait_for_counts({"👍": 2})


async def test_new_reactions_join_the_earlier_ones(world: World) -> None:
    """Events are counted while the backfill runs; a reaction in both counts once."""
    world.add_past(250)

    async with world.run_worker():
        world.react("👍", "ana")

        await world.wait_for_counts({"👍": 251})


async def test_a_new_channel_owes_a_repair(world: World) -> None:
    """Nobody knows which removals were missed before, so the channel is marked in Redis.

    The mark (`owed`) stays until a reconcile has compared the channel with PubNub's list.
    """
    async with world.run_worker(TALLY_SETTLE_SECONDS="600"):
        await world.settles()

        assert await world.owed("room") == {"first_start"}
