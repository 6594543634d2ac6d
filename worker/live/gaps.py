"""Marks what may have been missed, before a cursor passes over it."""

from collections.abc import Awaitable, Callable, Collection

import structlog

from worker.domain.position import Cursor
from worker.store.pending_repairs import GapCause
from worker.store.tables import Tables

log = structlog.get_logger(__name__)

RequestRepair = Callable[[Collection[str], Cursor | None], Awaitable[None]]
"""Asks for the repair of channels, up to the cursor if there is one.

The request is durable when it returns: ``Repairs.request`` in ``service/worker.py``.
"""


class Gaps:
    """Marks channels for repair, and asks for that repair."""

    def __init__(self, tables: Tables, request_repair: RequestRepair) -> None:
        self._tables = tables
        self._request_repair = request_repair

    async def owe(
        self,
        channels: Collection[str],
        cause: GapCause,
        cursor: Cursor | None,
        *,
        is_new: bool = True,
    ) -> None:
        """Mark the channels, ask for their repair, remember them.

        A gap that only goes on is not ``is_new``.
        Its mark is renewed, and nothing is logged.
        """
        # Each step is durable before the next one. A channel is remembered last:
        # one that is known already would never count as a new one.
        if is_new:
            log.warning("gap", cause=cause.value, channels=len(channels))
        await self._tables.pending.mark(channels, cause, is_new=is_new)
        await self._request_repair(channels, cursor)
        await self._tables.channels.add(channels)

    async def discover(self, channels: Collection[str], cursor: Cursor | None) -> None:
        """Take in channels of a group or a wildcard.

        A channel that was never seen needs a repair of its past.
        """
        unknown = await self._tables.channels.unknown(channels)
        if unknown:
            await self.owe(unknown, GapCause.NEW_CHANNEL, cursor)
