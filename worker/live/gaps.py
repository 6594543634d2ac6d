"""Marks what may have been missed, before a cursor passes over it."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable

import structlog

from worker.domain.position import Cursor, Range
from worker.errors import PubNubError
from worker.live.answer_queue import DecodedAnswer
from worker.live.full_answers import is_full
from worker.source.client import Client
from worker.source.names import Names, matches
from worker.source.wire import Malformed
from worker.store.pending_repairs import GapCause
from worker.store.tables import KnownChannels, Tables

log = structlog.get_logger(__name__)

RequestRepair = Callable[[Collection[str], Range | None], Awaitable[None]]
"""Asks for a repair; additions are missing in the range, if there is one.

It is ``RepairQueue.request`` in ``reconciliation/repair_queue.py``.
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
        stretch: Range | None,
        *,
        is_new: bool = True,
    ) -> None:
        """Mark the channels, ask for their repair, remember them.

        ``stretch`` is where additions may be missing, if that is known.
        A gap that only goes on is not ``is_new``.
        Its mark is renewed, and nothing is logged.
        """
        await self._tables.owe(channels, cause, is_new=is_new)
        await self._request_repair(channels, stretch)

    async def discover(
        self,
        channels: Collection[str],
        cursor: Cursor | None,
    ) -> None:
        """Take in channels of a group or a wildcard.

        A channel that was never seen needs a repair of its past.
        """
        unknown = await self._tables.channels.unknown(channels)
        if unknown:
            await self.owe(unknown, GapCause.NEW_CHANNEL, everything_before(cursor))


def everything_before(cursor: Cursor | None) -> Range | None:
    """Return a stretch without a begin; None without an end."""
    return Range(None, cursor.timetoken) if cursor else None


class CoveredChannels:
    """The channels of one subscription.

    A channel is named, matches a wildcard, or is a member of a group.
    """

    def __init__(
        self,
        names: Names,
        known: KnownChannels,
        client: Client,
        gaps: Gaps,
        catchup_seconds: float,
    ) -> None:
        """``catchup_seconds`` is how far PubNub's cache reaches back."""
        self._names = names
        self._known = known
        self._client = client
        self._gaps = gaps
        self.catchup_seconds = catchup_seconds
        self._seen: set[str] = set()

    def begin(self) -> None:
        """Forget what was seen, except the channels that are named."""
        self._seen = set(self._names.channels)

    async def remember(self, cursor: Cursor | None) -> None:
        """Add the named channels to those ever seen.

        A ``cursor`` covers them, but it does not cover what was forgotten.
        """
        if cursor:
            await self._gaps.discover(self._names.channels, cursor)
        await self._known.add(self._names.channels)

    async def mark_gaps(
        self,
        answers: Iterable[DecodedAnswer],
        before: Cursor | None,
        covered_until: float | None,
    ) -> None:
        """Mark what may be missing up to the end of each answer.

        ``before`` is the cursor before the first answer, and ``covered_until``
        is when PubNub sent it. None: there was none.
        """
        channels: set[str] = set()
        for answer in answers:
            cursor = answer.cursor
            since = before.timetoken if before else None
            stretch = Range(since, cursor.timetoken)
            if covered_until is None:
                await self.owe(self._names, GapCause.FIRST_START, stretch)
            elif answer.received_at - covered_until > self.catchup_seconds:
                await self.owe(self._names, GapCause.STALE_CURSOR, stretch)
            if is_full(answer):
                await self.owe(self._names, GapCause.OVERFLOW, stretch)

            channels.update(
                item.identity.channel for item in answer.decoded if not isinstance(item, Malformed)
            )
            before, covered_until = cursor, answer.received_at

        unseen = channels - self._seen
        if unseen:
            await self._gaps.discover(unseen, before)
            self._seen |= unseen

    async def owe(
        self,
        names: Names,
        cause: GapCause,
        stretch: Range | None,
        *,
        is_new: bool = True,
    ) -> None:
        """Mark the channels of these names; see ``Gaps.owe``."""
        channels = set(names.channels)
        if names.wildcards or names.groups:
            channels |= await self._channels_behind(names)
        self._seen |= channels
        await self._gaps.owe(channels, cause, stretch, is_new=is_new)

    async def _channels_behind(self, names: Names) -> set[str]:
        """Return the channels of wildcards and groups."""
        known = await self._known.all()
        lookups = [self._members(group, known) for group in names.groups]
        channels: set[str] = set()
        channels.update(*await asyncio.gather(*lookups))
        for wildcard in names.wildcards:
            channels |= {name for name in known if matches(wildcard, name)}
        return channels

    async def _members(self, group: str, known: Collection[str]) -> Collection[str]:
        """Return the channels of a group; all known ones if PubNub fails."""
        try:
            return await self._client.group_channels(group)
        except PubNubError as error:
            log.warning("group_unknown", group=group, reason=str(error))
            return known
