"""A channel that joins a group needs the repair of its past."""

import asyncio
from collections.abc import Iterable
from typing import Final

import structlog

from worker.domain.position import Cursor
from worker.errors import PubNubError
from worker.live.gaps import Gaps, everything_before
from worker.source.client import Client
from worker.store.pending_repairs import GapCause

LOOKUP_SECONDS: Final = 60.0
"""Seconds between two lookups of a group."""

log = structlog.get_logger(__name__)


class GroupMembers:
    """Looks groups up: PubNub sends no event when a channel joins."""

    def __init__(self, groups: Iterable[str], client: Client, gaps: Gaps) -> None:
        self._groups = tuple(groups)
        self._client = client
        self._gaps = gaps
        self._members: dict[str, frozenset[str]] = {}

    async def run(self) -> None:
        """Look up until cancelled."""
        for group in self._groups:
            await self._look_up(group)
        while True:
            await asyncio.sleep(LOOKUP_SECONDS)
            for group in self._groups:
                await self._compare(group)

    async def _compare(self, group: str) -> None:
        """Mark channels that joined, and those that were never seen."""
        before = self._members.get(group)
        members, cursor = await self._look_up(group)
        if before is None:
            await self._gaps.discover(members, cursor)
            return

        joined = members - before
        if joined:
            # A known channel, too: nothing followed it while it was away.
            stretch = everything_before(cursor)
            await self._gaps.owe(joined, GapCause.NEW_CHANNEL, stretch)
        await self._gaps.discover(members & before, cursor)

    async def _look_up(self, group: str) -> tuple[frozenset[str], Cursor | None]:
        """Return the members and PubNub's time, and keep the members.

        Where PubNub fails there are no members and no time.
        """
        try:
            cursor = Cursor(await self._client.time(), 0)
            members = frozenset(await self._client.group_channels(group))
        except PubNubError as error:
            log.warning("group_unknown", group=group, reason=str(error))
            return frozenset(), None

        self._members[group] = members
        return members, cursor
