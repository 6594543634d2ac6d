"""Reading: how an application shows the counts of its messages."""

from tests.worlds import World

MESSAGE = "17600000001728660"
OTHER_MESSAGE = "17600000009999999"


async def test_a_reader_returns_type_value_count(world: World) -> None:
    """`get` of a reader answers in one round trip, for example {'reaction': {'👍': 2}}."""
    async with world.run_worker():
        world.react("👍", "ana")
        world.react("👍", "ben")
        await world.settles()

    assert await world.reader.get("room", MESSAGE) == {"reaction": {"👍": 2}}


async def test_a_screen_of_messages_is_read_at_once(world: World) -> None:
    """`get_many` reads many messages; one without reactions has an empty mapping."""
    async with world.run_worker():
        world.react("🎉", "ana")
        await world.settles()

    counts = await world.reader.get_many("room", [MESSAGE, OTHER_MESSAGE])
    assert counts == {MESSAGE: {"reaction": {"🎉": 1}}, OTHER_MESSAGE: {}}


async def test_a_chat_screen_needs_one_page(world: World) -> None:
    """`page` has counts, what is mine, and the first names, in one round trip."""
    async with world.run_worker():
        world.react("👍", "ana")
        world.react("👍", "ben")
        await world.settles()

    page = await world.reader.page("room", [MESSAGE], me="ben", names=1)

    (thumbs,) = page.messages[MESSAGE].reactions
    assert (thumbs.value, thumbs.count, thumbs.mine) == ("👍", 2, True)
    assert (thumbs.names, thumbs.more) == (("ana",), True)


async def test_the_command_line_shows_counts(world: World) -> None:
    """`tally show CHANNEL MESSAGE_TIMETOKEN` prints a line for each value."""
    async with world.run_worker():
        world.react("👍", "ana")
        await world.settles()

    command = await world.run_command("show", "room", MESSAGE)

    assert command.out == "reaction  👍  1\n"
