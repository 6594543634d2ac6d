"""Live events into tallies: one subscription, polled and applied side by side, its cursor committed in order."""

import asyncio
from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Final

import structlog

from worker.apply import Applier, ForgottenError, StaleError
from worker.domain.action import Origin
from worker.domain.position import HANDSHAKE, Cursor
from worker.errors import PubNubError
from worker.gaps import Gaps
from worker.source.client import Client
from worker.source.live import Item, Poller, Readmitted, Received, Refused
from worker.source.names import Names, matches
from worker.source.wire import Decoded, Interest, Malformed, decode_message
from worker.store.keys import digest
from worker.store.marks import Gap, Marks

FULL_ANSWER: Final = 100
"""Messages in an answer from which on there may have been more: PubNub drops the rest without a word."""
QUEUED_ANSWERS: Final = 4
"""Answers that wait while others are applied; those that waited are applied together, for one round trip."""
MANY: Final = FULL_ANSWER // 2
"""Messages in an answer from which on the next is asked for at once.

After fewer it waits until these are applied: what happens meanwhile comes in one answer, where subscriptions by the
hundred would else be polled for each single event.
"""

log = structlog.get_logger(__name__)

HALVED_AFTER: Final = 3
"""Full answers in a row after which a subscription is halved: PubNub's limit is for one answer, whoever shares it."""


SAVES_AT_ONCE: Final = 4
"""Cursors on their way to Redis at once, each over a connection of its own."""
EVENTS_AT_ONCE: Final = 2_000
"""Events from which on others wait for the next time."""


class Together:
    """Applies what subscriptions bring: who comes while Redis has its hands full is applied next, with all who did.

    Two hundred subscriptions with an event each are then one round trip, and not two hundred over as many connections.
    """

    def __init__(self) -> None:
        self.saving = asyncio.Semaphore(SAVES_AT_ONCE)
        self._waiting: deque[_Brought] = deque()
        self._applying: asyncio.Task[None] | None = None

    async def apply(self, applier: Applier, decoded: Sequence[Decoded], received: float) -> None:
        """Apply them, read at ``received``; when it returns, they are applied.

        Raises:
            StaleError: these, or what was applied with them, waited for too long.
        """
        if not decoded:
            return
        mine = _Brought(decoded, received, asyncio.get_running_loop().create_future())
        self._waiting.append(mine)
        if not self._applying:
            self._applying = asyncio.create_task(self._apply(applier))
        await mine.applied

    async def _apply(self, applier: Applier) -> None:
        try:
            while self._waiting:
                group = self._next()
                decoded = [item for brought in group for item in brought.decoded]
                oldest = min(brought.received for brought in group)
                try:
                    outcomes = await applier.apply(decoded, Origin.LIVE, oldest)
                except Exception as error:  # it is theirs who brought the events
                    _tell(group, error)
                else:
                    _tell(group, None)
                    log.debug(
                        "applied", subscriptions=len(group), **{what.value: many for what, many in outcomes.items()}
                    )
        finally:
            self._applying = None

    def _next(self) -> list["_Brought"]:
        group, size = [self._waiting.popleft()], 0
        while self._waiting and (size := size + len(group[-1].decoded)) < EVENTS_AT_ONCE:
            group.append(self._waiting.popleft())
        return group


@dataclass(frozen=True, slots=True)
class _Brought:
    decoded: Sequence[Decoded]
    received: float
    applied: asyncio.Future[None]


def _tell(group: Sequence[_Brought], error: Exception | None) -> None:
    for brought in group:
        if brought.applied.done():  # whoever brought it has been cancelled
            continue
        if error:
            brought.applied.set_exception(error)
        else:
            brought.applied.set_result(None)


@dataclass(frozen=True, slots=True)
class Terms:
    """How the subscriptions of a worker are followed."""

    interest: Interest
    catchup_seconds: float
    clock: Callable[[], float]
    together: Together = field(default_factory=Together)


class Subscription:
    """One long poll's worth of names, followed until it is stopped."""

    def __init__(
        self, names: Names, poller: Poller, applier: Applier, marks: Marks, terms: Terms, client: Client, gaps: Gaps
    ) -> None:
        self.names = names
        self.id = digest(names.all)
        self._poller = poller
        self._applier = applier
        self._marks = marks
        self._terms = terms
        self._client = client
        self._gaps = gaps
        self.halves: tuple[Names, ...] = ()
        """What this subscription is to be followed as from now on, if it has been halved."""
        self._seen: set[str] = set()
        self._cursor: Cursor | None = None
        self._saves = 0
        self._full_answers = 0
        self._generation = applier.lineage.generation
        self._covered_until: float | None = None
        self._items: asyncio.Queue[Item | None] = asyncio.Queue()
        self._taken: deque[Item] = deque()
        self._is_worked_off = asyncio.Event()
        self._polling: asyncio.Task[None] | None = None
        self._is_stopping = False

    async def run(self) -> None:
        """Follow the subscription until ``stop``, or until it is halved, from where it was left."""
        while not (self._is_stopping or self.halves):
            try:
                await self._follow(await self._resume())
            except StaleError as error:
                log.warning("answer_dropped", subscription=self.id, reason=str(error))
                await self._mark_dropped()

    def stop(self) -> None:
        """Poll no more; ``run`` ends when what was polled is applied and the cursor saved."""
        self._is_stopping = True
        if self._polling:
            self._polling.cancel()

    def reread(self) -> None:
        """Begin again, if Redis went back, from the cursor it still knows; not only when the next answer comes."""
        if self._polling:
            self._items.put_nowait(Refused(Names()))  # of nobody: it makes whoever waits for items look

    async def _resume(self) -> Cursor:
        self._generation = self._applier.lineage.generation
        self._seen = set(self.names.channels)
        await self._applier.insist(lambda: self._marks.remember(self.names.channels))
        saved = await self._applier.insist(lambda: self._marks.cursor(self.id))
        self._saves = saved.saves if saved else 0
        self._cursor = saved.cursor if saved else None
        self._covered_until = self._terms.clock() - saved.age_seconds if saved else None
        log.info("subscription_starts", subscription=self.id, names=len(self.names.all), is_first=saved is None)
        return self._cursor or HANDSHAKE

    async def _follow(self, cursor: Cursor) -> None:
        if self._is_stopping:
            return
        items = self._items = asyncio.Queue()
        self._taken.clear()
        room = asyncio.Semaphore(QUEUED_ANSWERS)
        self._polling = asyncio.create_task(self._poll(cursor, items, room))
        # However polling ends, cancelled before its first step even, whoever waits for items hears of it.
        self._polling.add_done_callback(lambda _: items.put_nowait(None))
        try:
            while (item := await items.get()) is not None:
                room.release()
                self._taken.append(item)
                if items.empty():
                    await self._work_off()
            await self._work_off()
        finally:
            self._polling.cancel()
            await asyncio.wait([self._polling])
        if not self._polling.cancelled():
            self._polling.result()

    async def _mark_dropped(self) -> None:
        """Mark what queued refusals tell, though the answers between them are dropped and read again."""
        while not self._items.empty():
            if item := self._items.get_nowait():
                self._taken.append(item)
        while self._taken:
            item = self._taken.popleft()
            if isinstance(item, Refused | Readmitted) and item.names:
                await self._gaps.owe(await self._covered(item.names), Gap.FORBIDDEN, self._cursor)

    async def _poll(self, cursor: Cursor, items: asyncio.Queue[Item | None], room: asyncio.Semaphore) -> None:
        async for item in self._poller.items(cursor):
            self._is_worked_off.clear()
            items.put_nowait(item)
            await room.acquire()
            if isinstance(item, Received) and len(item.answer.messages) < MANY:
                await self._is_worked_off.wait()

    async def _work_off(self) -> None:
        """Take in what has come, in order; answers in a row at once. What fails stays, so that it can be marked."""
        while self._taken:
            self._expect_the_same_redis()
            answers = [item for item in takewhile(_is_answer, self._taken) if isinstance(item, Received)]
            if answers:
                await self._commit(answers)
            else:
                await self._heed(self._taken[0])
            for _ in answers or (None,):
                self._taken.popleft()
        self._is_worked_off.set()

    async def _heed(self, item: Item) -> None:
        match item:
            case Refused(names) if names:  # said again at every try, so the mark stays new for as long as they are out
                await self._gaps.owe(await self._covered(names), Gap.FORBIDDEN, None)
            case Readmitted(names):
                await self._gaps.owe(await self._covered(names), Gap.FORBIDDEN, self._cursor)

    async def _commit(self, answers: Sequence[Received]) -> None:
        """Apply answers, then save the last one's cursor; before that, mark whatever it is about to pass over."""
        decoded: list[Decoded] = []
        covered_until = self._covered_until
        for received in answers:
            cursor, messages = received.answer.cursor, received.answer.messages
            found = [item for message in messages if (item := decode_message(message, self._terms.interest))]
            for gap in self._passed(received, covered_until):
                await self._gaps.owe(await self._covered(self.names), gap, cursor)
            await self._meet({item.identity.channel for item in found if not isinstance(item, Malformed)}, cursor)
            decoded += found
            covered_until = received.at
        oldest, last = answers[0].at, answers[-1]
        await self._terms.together.apply(self._applier, decoded, oldest)
        await self._save(last.answer.cursor, oldest)
        self._cursor, self._covered_until = last.answer.cursor, last.at
        await self._halve([len(received.answer.messages) >= FULL_ANSWER for received in answers])

    async def _save(self, cursor: Cursor, received: float) -> None:
        """Save a cursor, unless Redis has forgotten something that came before it; the oldest answer came ``received``.

        Raises:
            StaleError: that is long ago. The cursor would be saved as if it were of now, and PubNub's cache may not
                reach back to it any more.
            ForgottenError: Redis has.
        """

        async def save() -> int:
            async with self._terms.together.saving:
                self._expect_the_same_redis()
                self._applier.expect_fresh(received, "a cursor")
                return await self._marks.save_cursor(self.id, cursor, self._saves)

        self._saves = await self._applier.insist(save)
        if not self._saves:
            self._applier.lineage.suspect(f"a cursor of subscription {self.id} is gone")
            raise ForgottenError("Redis has forgotten a cursor that was saved")

    def _expect_the_same_redis(self) -> None:
        if self._applier.lineage.generation != self._generation:
            raise ForgottenError("Redis went back; going on from what it still knows")

    async def _halve(self, are_full: Sequence[bool]) -> None:
        """Leave a subscription whose answers stay full to two halves, which begin where it has come to."""
        most = 0
        for is_full in are_full:
            self._full_answers = self._full_answers + 1 if is_full else 0
            most = max(most, self._full_answers)
        halves = self.names.halves() if most >= HALVED_AFTER else ()
        if not halves or not self._cursor:
            return
        cursor = self._cursor
        for half in halves:
            await self._applier.insist(lambda half=half: self._marks.save_cursor(digest(half.all), cursor))  # type: ignore[misc]
        log.warning("subscription_halved", subscription=self.id, names=len(self.names.all))
        self.halves = halves
        if self._polling:
            self._polling.cancel()

    def _passed(self, received: Received, covered_until: float | None) -> list[Gap]:
        gaps = []
        if covered_until is None:
            gaps.append(Gap.FIRST_START)
        elif received.at - covered_until > self._terms.catchup_seconds:
            gaps.append(Gap.STALE_CURSOR)
        if len(received.answer.messages) >= FULL_ANSWER:
            gaps.append(Gap.OVERFLOW)
        return gaps

    async def _meet(self, channels: set[str], cursor: Cursor) -> None:
        if unmet := channels - self._seen:
            await self._gaps.meet(unmet, cursor)
            self._seen |= unmet

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


def _is_answer(item: Item) -> bool:
    return isinstance(item, Received)
