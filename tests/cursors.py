"""A cursor, saved by itself."""

from collections.abc import Callable

from worker.domain.position import Cursor
from worker.store.cursors import Cursors
from worker.store.script_call import CursorSave


async def save_cursor(
    cursors: Cursors,
    subscription: str,
    cursor: Cursor,
    known: int = 0,
    age: Callable[[], float] = lambda: 0.0,
) -> int:
    """Save a cursor; return the number of the save, or 0 if Redis has forgotten ``known``."""
    save = CursorSave(subscription, cursor, known, age)
    await cursors.save(save)
    assert save.number is not None
    return save.number
