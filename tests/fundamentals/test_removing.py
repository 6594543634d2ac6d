"""Removing: a user takes a reaction back, and the count falls."""

from tests.worlds import World


async def test_a_removal_lowers_the_count(world: World) -> None:
    """Only the user's own reaction goes; the reactions of other users stay."""
    async with world.run_worker():
        reaction = world.react("👍", "ana")
        world.react("👍", "ben")
        await world.wait_for_counts({"👍": 2})

        world.take_back(reaction, "ana")

        await world.wait_for_counts({"👍": 1})


async def test_a_count_of_zero_disappears(world: World) -> None:
    """A value without users is no field of the hash, so a reader shows every field it finds."""
    async with world.run_worker():
        reaction = world.react("👍", "ana")
        world.react("🎉", "ben")
        await world.wait_for_counts({"👍": 1, "🎉": 1})

        world.take_back(reaction, "ana")

        await world.wait_for_counts({"🎉": 1})
    assert await world.redis.hgetall("tally:{room}:counts:17600000001728660") == {
        "reaction:🎉": "1"
    }


async def test_a_second_reaction_counts_again(world: World) -> None:
    """A user may take a reaction back and react again: that is one, not two and not none."""
    async with world.run_worker():
        reaction = world.react("👍", "ana")
        world.take_back(reaction, "ana")
        world.react("👍", "ana")
        world.react("🎉", "ben")

        await world.wait_for_counts({"👍": 1, "🎉": 1})
