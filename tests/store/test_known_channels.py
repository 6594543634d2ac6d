"""The table of known channels."""

from worker.store.tables import Tables


async def test_a_channel_is_unknown_until_it_is_added(tables: Tables) -> None:
    """To ask adds nothing: the repair of a new channel is marked before it is added."""
    assert await tables.channels.unknown(["a", "b"]) == {"a", "b"}
    await tables.channels.add(["a", "b"])
    assert await tables.channels.unknown(["b", "c"]) == {"c"}
    assert await tables.channels.unknown([]) == frozenset()
    await tables.channels.add([])
    assert await tables.channels.all() == {"a", "b"}
