"""Who is in the channel groups: a channel that joins one is owed what happened before."""

import asyncio
from collections.abc import Iterable
from typing import Final

import structlog

from worker.domain.position import Cursor
from worker.errors import PubNubError
from worker.live.gaps import Gaps
from worker.source.client import Client
from worker.store.marks import GapCause

LOOK_SECONDS: Final = 60.0

log = structlog.get_logger(__name__)


class GroupMembers:
    """Looks groups up, again and again: PubNub tells nobody that a channel has joined."""

    def __init__(self, groups: Iterable[str], client: Client, gaps: Gaps) -> None:
        self._groups = tuple(groups)
        self._client = client
        self._gaps = gaps
        self._members: dict[str, frozenset[str]] = {}

    async def run(self) -> None:
        """Look until cancelled."""
        for group in self._groups:
            await self._look(group)
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            for group in self._groups:
                before = self._members.get(group)
                members, cursor = await self._look(group)
                if before is not None:
                    # Known or not: nobody listened to it while it was away.
                    await self._owe(members - before, cursor)
                await self._gaps.discover(members & (before or members), cursor)

    async def _look(self, group: str) -> tuple[frozenset[str], Cursor | None]:
        """Return the members and the time, and keep them; none where PubNub does not answer."""
        try:
            cursor = Cursor(await self._client.time(), 0)
            self._members[group] = frozenset(await self._client.group_channels(group))
        except PubNubError as error:
            log.warning("group_unknown", group=group, reason=str(error))
            return frozenset(), None
        return self._members[group], cursor

    async def _owe(self, joined: frozenset[str], cursor: Cursor | None) -> None:
        if joined:
            await self._gaps.owe(joined, GapCause.NEW_CHANNEL, cursor)
