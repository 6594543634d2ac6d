"""Duplicates: PubNub delivers an event twice, for example after a reconnect; it counts once.

The last event of each test is one of another user. PubNub delivers in order, so when that one is
counted, every event before it has been applied.
"""

from tests.worlds import World

FIRST = 17600000002000000
"""An action timetoken: PubNub's time of the reaction, with 17 digits."""


async def test_a_repeated_addition_counts_once(world: World) -> None:
    """The action timetoken tells that it is the same reaction.

    A counter that adds one for each event would show 3.
    """
    async with world.run_worker():
        for _ in range(3):
            world.deliver("added", "👍", "ana", FIRST)
        world.deliver("added", "🎉", "ben", FIRST + 1)

        await world.wait_for_counts({"👍": 1, "🎉": 1})


async def test_a_repeated_removal_counts_once(world: World) -> None:
    """A counter that subtracts one for each event would show a negative number."""
    async with world.run_worker():
        world.deliver("added", "👍", "ana", FIRST)
        world.deliver("added", "👍", "ben", FIRST + 1)
        for _ in range(3):
            world.deliver("removed", "👍", "ana", FIRST)
        world.deliver("added", "🎉", "eve", FIRST + 2)

        await world.wait_for_counts({"👍": 1, "🎉": 1})
