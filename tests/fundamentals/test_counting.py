"""Counting: each reaction of a user is one, in the hash that any program can read."""

from tests.worlds import World


async def test_every_user_counts_once(world: World) -> None:
    """The count of a value is the number of users who react with it.

    PubNub keeps who reacted and offers no count. This number is what the service is for.
    """
    async with world.run_worker():
        world.react("👍", "ana")
        world.react("👍", "ben")
        world.react("🎉", "ana")

        await world.wait_for_counts({"👍": 2, "🎉": 1})


async def test_the_counts_are_one_hash(world: World) -> None:
    """A message's counts are one Redis hash, so any language reads them in one round trip.

    Key and field names are a public contract: channel in braces, message timetoken, type and value.
    """
    async with world.run_worker():
        world.react("👍", "ana")
        await world.wait_for_counts({"👍": 1})

    counts = await world.redis.hgetall("tally:{room}:counts:17600000001728660")
    assert counts == {"reaction:👍": "1"}


async def test_channels_are_counted_apart(world: World) -> None:
    """The same message timetoken in two channels is two messages."""
    async with world.run_worker(TALLY_CHANNELS="room,hall"):
        world.react("👍", "ana", channel="room")
        world.react("👍", "ana", channel="hall")
        world.react("👍", "ben", channel="hall")

        await world.settles()

    assert (await world.reader.get("room", "17600000001728660"))["reaction"] == {"👍": 1}
    assert (await world.reader.get("hall", "17600000001728660"))["reaction"] == {"👍": 2}
