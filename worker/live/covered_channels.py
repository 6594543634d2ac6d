"""Which channels the names of a subscription stand for."""

import asyncio
from collections.abc import Collection

import structlog

from worker.domain.position import Cursor
from worker.errors import PubNubError
from worker.live.gaps import Gaps
from worker.source.client import Client
from worker.source.names import Names, matches
from worker.store.known_channels import KnownChannels
from worker.store.pending_repairs import GapCause

log = structlog.get_logger(__name__)


class CoveredChannels:
    """The channels of one subscription.

    A channel is named, is met through a wildcard, or is a member of a group.
    """

    def __init__(self, known: KnownChannels, client: Client, gaps: Gaps) -> None:
        self._known = known
        self._client = client
        self._gaps = gaps
        self._seen: set[str] = set()

    def begin(self, names: Names) -> None:
        """Forget what was seen, except the channels that are named."""
        self._seen = set(names.channels)

    async def remember(self, names: Names) -> None:
        """Add the named channels to those ever seen."""
        await self._known.add(names.channels)

    async def owe(
        self, names: Names, cause: GapCause, cursor: Cursor | None, *, is_new: bool = True
    ) -> None:
        """Mark the channels that these names stand for; see ``Gaps.owe``."""
        channels = set(names.channels)
        if names.wildcards or names.groups:
            channels |= await self._channels_behind(names)
        self._seen |= channels
        await self._gaps.owe(channels, cause, cursor, is_new=is_new)

    async def discover(self, channels: Collection[str], cursor: Cursor) -> None:
        """Take in the channels of an answer; see ``Gaps.discover``."""
        unseen = set(channels) - self._seen
        if unseen:
            await self._gaps.discover(unseen, cursor)
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
