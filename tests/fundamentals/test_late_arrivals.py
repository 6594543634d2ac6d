"""Late arrivals: events of one reaction come in the wrong order, and the count is still right.

The last event of each test is one of another user: when it is counted, so is all before it.
"""

from tests.worlds import World

FIRST = 17600000002000000
"""An action timetoken: PubNub's time of the reaction, with 17 digits."""


async def test_an_early_removal_cancels_its_addition(world: World) -> None:
    """The removal arrives first. Its addition comes later, and counts nothing.

    The removal leaves a tombstone, which says up to which action timetoken all is removed.
    """
    async with world.run_worker():
        world.deliver("removed", "👍", "ana", FIRST)
        world.deliver("added", "👍", "ana", FIRST)
        world.deliver("added", "🎉", "ben", FIRST + 1)

        await world.wait_for_counts({"🎉": 1})


async def test_a_late_removal_spares_the_newer_reaction(world: World) -> None:
    """A user reacts, takes it back, and reacts again. The removal arrives last of the three.

    It names the older reaction by its action timetoken, so the newer one stays.
    """
    async with world.run_worker():
        world.deliver("added", "👍", "ana", FIRST)
        world.deliver("added", "👍", "ana", FIRST + 2)
        world.deliver("removed", "👍", "ana", FIRST)
        world.deliver("added", "🎉", "ben", FIRST + 3)

        await world.wait_for_counts({"👍": 1, "🎉": 1})
