"""Which channels the names of a subscription stand for, and what they may have missed."""

import asyncio
from collections.abc import Collection, Iterable

import structlog

from worker.domain.position import Cursor
from worker.errors import PubNubError
from worker.live.answer_queue import DecodedAnswer
from worker.live.full_answers import is_full
from worker.live.gaps import Gaps
from worker.source.client import Client
from worker.source.names import Names, matches
from worker.source.wire import Malformed
from worker.store.known_channels import KnownChannels
from worker.store.pending_repairs import GapCause

log = structlog.get_logger(__name__)


class CoveredChannels:
    """The channels of one subscription.

    A channel is named, is met through a wildcard, or is a member of a group.
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
        self._catchup_seconds = catchup_seconds
        self._seen: set[str] = set()

    def begin(self) -> None:
        """Forget what was seen, except the channels that are named."""
        self._seen = set(self._names.channels)

    async def remember(self) -> None:
        """Add the named channels to those ever seen."""
        await self._known.add(self._names.channels)

    async def mark_gaps(
        self,
        answers: Iterable[DecodedAnswer],
        covered_until: float | None,
    ) -> None:
        """Mark what may be missing up to the end of each answer.

        PubNub has sent everything before ``covered_until``; None if nothing was read yet.
        """
        for answer in answers:
            cursor = answer.cursor
            if covered_until is None:
                await self.owe(self._names, GapCause.FIRST_START, cursor)
            elif answer.received_at - covered_until > self._catchup_seconds:
                await self.owe(self._names, GapCause.STALE_CURSOR, cursor)
            if is_full(answer):
                await self.owe(self._names, GapCause.OVERFLOW, cursor)
            await self._discover(answer)
            covered_until = answer.received_at

    async def owe(
        self,
        names: Names,
        cause: GapCause,
        cursor: Cursor | None,
        *,
        is_new: bool = True,
    ) -> None:
        """Mark the channels that these names stand for; see ``Gaps.owe``."""
        channels = set(names.channels)
        if names.wildcards or names.groups:
            channels |= await self._channels_behind(names)
        self._seen |= channels
        await self._gaps.owe(channels, cause, cursor, is_new=is_new)

    async def _discover(self, answer: DecodedAnswer) -> None:
        """Take in the channels of an answer."""
        events = [item for item in answer.decoded if not isinstance(item, Malformed)]
        channels = {event.identity.channel for event in events}
        unseen = channels - self._seen
        if unseen:
            await self._gaps.discover(unseen, answer.cursor)
            self._seen |= unseen

    async def _channels_behind(self, names: Names) -> set[str]:
        """Return the channels of wildcards and groups."""
        known = await self._known.all() | self._seen
        lookups = [self._members(group, known) for group in names.groups]
        channels: set[str] = set()
        channels.update(*await asyncio.gather(*lookups))
        for wildcard in names.wildcards:
            channels.update(channel for channel in known if matches(wildcard, channel))
        return channels

    async def _members(self, group: str, known: Collection[str]) -> Collection[str]:
        """Return the channels of a group; where PubNub fails, all channels ever seen."""
        try:
            return await self._client.group_channels(group)
        except PubNubError as error:
            log.warning("group_unknown", group=group, reason=str(error))
            return known
