"""No event of a forgotten user is applied."""

import asyncio
import math
from collections.abc import Callable, Iterable
from typing import Final, TypeVar

from worker.domain.action import Event, Pruned
from worker.domain.forgotten_users import NOBODY, ForgottenUsers
from worker.source.wire import Malformed
from worker.store.refused_users import RefusedUsers

FRESH_SECONDS: Final = 10.0
"""What is known of forgotten users was read from Redis so long ago at most."""

Item = TypeVar("Item", bound=Event | Malformed | None)


class FreshUsers:
    """The forgotten users, as Redis knew them a moment ago.

    All parts of a process share one of these: it reads once in ten seconds.
    """

    def __init__(self, table: RefusedUsers, clock: Callable[[], float]) -> None:
        self._table = table
        self._clock = clock
        self._users = NOBODY
        self._read_at = -math.inf
        self._lock = asyncio.Lock()

    async def current(self) -> ForgottenUsers:
        """Return the forgotten users, read ten seconds ago at most.

        It waits while Redis is away: nothing could be applied.
        """
        while self._clock() - self._read_at > FRESH_SECONDS:
            await self._read_after(self._read_at)
        return self._users

    async def _read_after(self, known: float) -> None:
        async with self._lock:
            if self._read_at > known:  # another task has read them meanwhile
                return
            # Not afterwards: the answer may be as old as the question.
            asked_at = self._clock()
            self._users = await self._table.read()
            self._read_at = asked_at


def without_users(users: ForgottenUsers, items: Iterable[Item]) -> list[Item]:
    """Return the items that do not concern one of these users."""
    return [item for item in items if not _concerns(item, users)]


def _concerns(item: Event | Malformed | None, users: ForgottenUsers) -> bool:
    match item:
        # A prune takes away: that is never refused.
        case None | Pruned():
            return False
        case Malformed():
            return any(user in users for user in item.users)
        case _:
            return item.identity.uuid in users
