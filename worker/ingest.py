"""Live events into tallies: one subscription, polled and applied side by side, its cursor committed in order."""

import asyncio
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from typing import Final

import structlog

from worker.apply import Applier, StaleError
from worker.domain.action import Origin
from worker.domain.position import HANDSHAKE, Cursor
from worker.errors import PubNubError
from worker.source.client import Client
from worker.source.live import Item, Poller, Readmitted, Received, Refused
from worker.source.names import Names, matches
from worker.source.wire import Interest, Malformed, decode_message
from worker.store.keys import digest
from worker.store.marks import Gap, Marks

FULL_ANSWER: Final = 100
"""Messages in an answer from which on there may have been more: PubNub drops the rest without a word."""
QUEUED_ANSWERS: Final = 2

log = structlog.get_logger(__name__)

Repair = Callable[[Collection[str], Cursor], Awaitable[None]]
"""Asks for a backfill of channels that may lack actions up to a cursor; durable when it returns."""


@dataclass(frozen=True, slots=True)
class Terms:
    """How a subscription is followed."""

    interest: Interest
    catchup_seconds: float
    clock: Callable[[], float]


class Subscription:
    """One long poll's worth of names, followed until it is stopped."""

    def __init__(
        self, names: Names, poller: Poller, applier: Applier, marks: Marks, terms: Terms, client: Client, repair: Repair
    ) -> None:
        self.names = names
        self.id = digest(names.all)
        self._poller = poller
        self._applier = applier
        self._marks = marks
        self._terms = terms
        self._client = client
        self._repair = repair
        self._seen = set(names.channels)
        self._cursor: Cursor | None = None
        self._covered_until: float | None = None
        self._items: asyncio.Queue[Item | None] = asyncio.Queue()
        self._polling: asyncio.Task[None] | None = None
        self._is_stopping = False

    async def run(self) -> None:
        """Follow the subscription until ``stop``, from where it was left."""
        await self._applier.insist(lambda: self._marks.remember(self.names.channels))
        while not self._is_stopping:
            cursor = await self._resume()
            try:
                await self._follow(cursor)
            except StaleError as error:
                log.warning("answer_dropped", subscription=self.id, reason=str(error))
                await self._mark_dropped()

    def stop(self) -> None:
        """Poll no more; ``run`` ends when what was polled is applied and the cursor saved."""
        self._is_stopping = True
        if self._polling:
            self._polling.cancel()

    async def _resume(self) -> Cursor:
        saved = await self._applier.insist(lambda: self._marks.cursor(self.id))
        self._cursor = saved.cursor if saved else None
        self._covered_until = self._terms.clock() - saved.age_seconds if saved else None
        log.info("subscription_starts", subscription=self.id, names=len(self.names.all), is_first=saved is None)
        return self._cursor or HANDSHAKE

    async def _follow(self, cursor: Cursor) -> None:
        if self._is_stopping:
            return
        items = self._items = asyncio.Queue()
        room = asyncio.Semaphore(QUEUED_ANSWERS)
        self._polling = asyncio.create_task(self._poll(cursor, items, room))
        # However polling ends, cancelled before its first step even, whoever waits for items hears of it.
        self._polling.add_done_callback(lambda _: items.put_nowait(None))
        try:
            while (item := await items.get()) is not None:
                room.release()
                await self._take(item)
        finally:
            self._polling.cancel()
            await asyncio.wait([self._polling])
        if not self._polling.cancelled():
            self._polling.result()

    async def _mark_dropped(self) -> None:
        """Mark what queued refusals tell, though the answers between them are dropped and read again."""
        while not self._items.empty():
            item = self._items.get_nowait()
            if isinstance(item, Refused | Readmitted):
                await self._take(item)

    async def _poll(self, cursor: Cursor, items: asyncio.Queue[Item | None], room: asyncio.Semaphore) -> None:
        async for item in self._poller.items(cursor):
            items.put_nowait(item)
            await room.acquire()

    async def _take(self, item: Item) -> None:
        match item:
            case Received():
                await self._commit(item)
            case Refused(names) | Readmitted(names):
                await self._owe(await self._covered(names), Gap.FORBIDDEN, self._cursor)

    async def _commit(self, received: Received) -> None:
        """Apply an answer, then save its cursor; before that, mark whatever the cursor is about to pass over."""
        answer = received.answer
        decoded = [item for message in answer.messages if (item := decode_message(message, self._terms.interest))]
        for gap in self._gaps(received):
            await self._owe(await self._covered(self.names), gap, answer.cursor)
        await self._meet({d.identity.channel for d in decoded if not isinstance(d, Malformed)}, answer.cursor)
        outcomes = await self._applier.apply(decoded, Origin.LIVE, received.at)
        await self._applier.insist(lambda: self._marks.save_cursor(self.id, answer.cursor))
        self._cursor, self._covered_until = answer.cursor, received.at
        if outcomes:
            facts = {outcome.value: count for outcome, count in outcomes.items()}
            log.debug("answer_applied", subscription=self.id, messages=len(answer.messages), **facts)

    def _gaps(self, received: Received) -> list[Gap]:
        gaps = []
        if self._covered_until is None:
            gaps.append(Gap.FIRST_START)
        elif received.at - self._covered_until > self._terms.catchup_seconds:
            gaps.append(Gap.STALE_CURSOR)
        if len(received.answer.messages) >= FULL_ANSWER:
            gaps.append(Gap.OVERFLOW)
        return gaps

    async def _meet(self, channels: set[str], cursor: Cursor) -> None:
        """Take in channels that a group or a wildcard brings; those nobody has met are owed their past.

        Remembered last: a channel that is known already would never be owed again.
        """
        if unmet := channels - self._seen:
            if unknown := await self._applier.insist(lambda: self._marks.unknown(unmet)):
                await self._owe(unknown, Gap.NEW_CHANNEL, cursor)
            await self._applier.insist(lambda: self._marks.remember(unmet))
            self._seen |= unmet

    async def _owe(self, channels: Collection[str], gap: Gap, cursor: Cursor | None) -> None:
        log.warning("gap", subscription=self.id, cause=gap.value, channels=len(channels))
        await self._applier.insist(lambda: self._marks.owe(channels, gap))
        if cursor:
            await self._applier.insist(lambda: self._repair(channels, cursor))
        await self._applier.insist(lambda: self._marks.remember(channels))

    async def _covered(self, names: Names) -> frozenset[str]:
        """Return the channels these names stand for; where that cannot be told, all that were ever seen."""
        channels = set(names.channels)
        if names.wildcards or names.groups:
            known = await self._applier.insist(self._marks.channels) | self._seen
            channels.update(name for name in known if any(matches(wildcard, name) for wildcard in names.wildcards))
            for members in await asyncio.gather(*(self._group(group, known) for group in names.groups)):
                channels.update(members)
        self._seen |= channels
        return frozenset(channels)

    async def _group(self, group: str, known: Collection[str]) -> Collection[str]:
        try:
            return await self._client.group_channels(group)
        except PubNubError as error:
            log.warning("group_unknown", group=group, reason=str(error))
            return known
