"""Live events into tallies: one subscription, polled and applied side by side, its cursor committed in order."""

import asyncio
from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import takewhile
from typing import Final

import structlog

from worker.applying.apply import Applier, ForgottenError, StaleError
from worker.domain.action import Observed
from worker.domain.position import HANDSHAKE, Cursor
from worker.errors import PubNubError
from worker.live.assignment import Lot
from worker.live.gaps import Gaps
from worker.live.group_commit import Together
from worker.source.client import Client
from worker.source.live import Poller, Readmitted, Received, Refused
from worker.source.names import Names, matches
from worker.source.wire import Interest, Malformed, decode_message
from worker.store.keys import digest
from worker.store.marks import Gap, Marks

FULL_ANSWER: Final = 100
"""Messages in an answer from which on there may have been more: PubNub drops the rest without a word."""
QUEUED_ANSWERS: Final = 8
"""Answers that wait while others are applied; those that waited are applied together, for one round trip."""
MANY: Final = FULL_ANSWER // 2
"""Messages in an answer from which on the next is asked for at once.

After fewer it waits until these are applied: what happens meanwhile comes in one answer, where subscriptions by the
hundred would else be polled for each single event.
"""
PATIENCE_SECONDS: Final = 0.5
"""How long it waits for that at most: while Redis hangs it reads ahead, for PubNub keeps only an answer's worth."""

LATE_SECONDS: Final = 90.0
"""How long after an answer was due somebody still asks again, on a busy machine, or on one that was suspended."""

log = structlog.get_logger(__name__)

HALVED_AFTER: Final = 3
"""Full answers in a row after which a subscription is halved: PubNub's limit is for one answer, whoever shares it."""


@dataclass(frozen=True, slots=True)
class Terms:
    """How the subscriptions of a worker are followed."""

    interest: Interest
    catchup_seconds: float
    clock: Callable[[], float]
    together: Together = field(default_factory=Together)


@dataclass(frozen=True, slots=True)
class _Read:
    """An answer, decoded: its cursor, when it came, and how many messages of all kinds it had."""

    cursor: Cursor
    at: float
    messages: int
    decoded: Sequence[Observed | Malformed]


_Item = _Read | Refused | Readmitted


@dataclass(frozen=True, slots=True)
class Place:
    """Where a subscription has come to, and until when (seconds of the clock) PubNub had told it everything.

    ``saves`` is how often its cursor was saved: a Redis that knows of fewer went back.
    """

    subscription: str
    cursor: Cursor
    covered_until: float
    saves: int


class State(StrEnum):
    """What a subscription is at."""

    STARTING = "starting"
    FOLLOWING = "following"
    WAITING = "waiting"
    """It waits for Redis: to take what PubNub has answered, or to say where to go on."""
    UNREACHABLE = "unreachable"
    REFUSED = "refused"
    """PubNub answers 403 for some of its names."""
    STOPPING = "stopping"


class Subscription:
    """One long poll's worth of names, followed until it is stopped."""

    def __init__(
        self, lot: Lot[Place], poller: Poller, applier: Applier, marks: Marks, terms: Terms, client: Client, gaps: Gaps
    ) -> None:
        self.names = lot.names
        self.id = digest(self.names.all)
        self._inherited, self._joined = lot.place, lot.joined
        self._poller = poller
        self._applier = applier
        self._marks = marks
        self._terms = terms
        self._client = client
        self._gaps = gaps
        self.heirs: tuple[Lot[None], ...] | None = None
        """What is to be followed in place of this subscription, from where it has come to."""
        self._seen: set[str] = set()
        self._cursor: Cursor | None = None
        self._saves = 0
        self._is_saved = False
        self._full_answers = 0
        self._generation = applier.lineage.generation
        self._covered_until: float | None = None
        self._items: asyncio.Queue[_Item | None] = asyncio.Queue()
        self._room = asyncio.Semaphore(QUEUED_ANSWERS)
        self._taken: deque[_Item] = deque()
        self._is_worked_off = asyncio.Event()
        self._polling: asyncio.Task[None] | None = None
        self._is_stopping = False

    async def run(self) -> None:
        """Follow the subscription until ``stop``, or until it has heirs, from where it was left."""
        while not self._is_stopping:
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

    def leave_to(self, heirs: Iterable[Lot[None]]) -> None:
        """Stop; the heirs are to be followed instead. What was to join this one and has not yet, is to join them."""
        self.heirs = tuple(
            Lot(heir.names, None, heir.joined | self._joined.only(frozenset(heir.names.all))) for heir in heirs
        )
        self.stop()

    @property
    def place(self) -> Place | None:
        """Where it has come to; None if nothing was read yet."""
        if self._cursor and self._covered_until is not None:
            return Place(self.id, self._cursor, self._covered_until, self._saves)
        return self._inherited

    @property
    def is_shut_out(self) -> bool:
        """Whether PubNub refuses every one of its names: it is owed, and has nothing to ask for."""
        return self._poller.is_shut_out

    @property
    def has_begun(self) -> bool:
        """Whether PubNub's cache reaches back to its place; where it did not, that is marked before the place moves."""
        place = self.place
        return place is not None and self._terms.clock() - place.covered_until <= self._terms.catchup_seconds

    @property
    def state(self) -> State:
        """What it is at."""
        if self._is_stopping:
            return State.STOPPING
        if self._polling and (self._polling.done() or self._room.locked()):
            return State.WAITING
        return State(self._poller.state)

    @property
    def is_stuck(self) -> bool:
        """Whether it asks PubNub, and has been at the same question for longer than any takes."""
        if self._polling is None or self.state in {State.WAITING, State.STOPPING}:
            return False
        return self._terms.clock() - self._poller.due_at > LATE_SECONDS

    @property
    def answered_at(self) -> float | None:
        """When PubNub answered last, in seconds of the clock."""
        return self._poller.answered_at

    @property
    def due_at(self) -> float:
        """By when PubNub answers, in seconds of the clock."""
        return self._poller.due_at

    @property
    def queued(self) -> int:
        """How many of PubNub's answers wait to be applied, or are being applied."""
        return self._items.qsize() + len(self._taken)

    def reread(self) -> None:
        """Begin again, if Redis went back, from the cursor it still knows; not only when the next answer comes."""
        if self._polling:
            self._items.put_nowait(Refused(Names()))  # of nobody: it makes whoever waits for items look

    async def _resume(self) -> Cursor:
        self._generation = self._applier.lineage.generation
        self._seen = set(self.names.channels)
        await self._take_over()
        await self._applier.insist(lambda: self._marks.remember(self.names.channels))
        saved = await self._applier.insist(lambda: self._marks.cursor(self.id))
        self._saves = saved.saves if saved else 0
        self._cursor = saved.cursor if saved else None
        self._covered_until = self._terms.clock() - saved.age_seconds if saved else None
        log.info("subscription_starts", subscription=self.id, names=len(self.names.all), is_first=saved is None)
        return self._cursor or HANDSHAKE

    async def _take_over(self) -> None:
        """Begin where another subscription has come to; who joins only here may have missed what came before."""
        await self._applier.insist(lambda: self._marks.register(self.id, self.names.all))
        if place := self._inherited:
            if self._joined:
                await self._gaps.owe(await self._covered(self._joined), Gap.NEW_CHANNEL, place.cursor)
            await self._inherit(place)
        self._inherited, self._joined = None, Names()

    async def _inherit(self, place: Place) -> None:
        """Save the other's cursor as this one's.

        Raises:
            ForgottenError: Redis knows less than it did; this one goes on from what it still knows.
        """
        known = await self._applier.insist(lambda: self._marks.cursor(place.subscription))
        if known is None or known.saves < place.saves:
            self._inherited, self._joined = None, Names()
            self._applier.lineage.suspect(f"a cursor of subscription {place.subscription} is gone")
            raise ForgottenError("Redis has forgotten a cursor that was saved")

        async def save() -> int:
            age = self._terms.clock() - place.covered_until  # of now: Redis may be away for long before it is saved
            return await self._marks.save_cursor(self.id, place.cursor, age_seconds=age)

        await self._applier.insist(save)

    async def _follow(self, cursor: Cursor) -> None:
        if self._is_stopping:
            return
        items = self._items = asyncio.Queue()
        self._taken.clear()
        room = self._room = asyncio.Semaphore(QUEUED_ANSWERS)
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

    async def _poll(self, cursor: Cursor, items: asyncio.Queue[_Item | None], room: asyncio.Semaphore) -> None:
        async with aclosing(self._poller.items(cursor)) as polled:  # type: ignore[type-var] # it is a generator
            async for item in polled:
                # Decoded here, while Redis is at work on what came before.
                read = self._read(item) if isinstance(item, Received) else item
                self._is_worked_off.clear()
                items.put_nowait(read)
                await room.acquire()
                if isinstance(read, _Read) and read.messages < MANY:
                    with suppress(TimeoutError):
                        async with asyncio.timeout(PATIENCE_SECONDS):
                            await self._is_worked_off.wait()

    def _read(self, received: Received) -> _Read:
        messages, interest = received.answer.messages, self._terms.interest
        decoded = [item for message in messages if (item := decode_message(message, interest))]
        return _Read(received.answer.cursor, received.at, len(messages), decoded)

    async def _work_off(self) -> None:
        """Take in what has come, in order; answers in a row at once. What fails stays, so that it can be marked."""
        while self._taken:
            self._expect_the_same_redis()
            answers = [item for item in takewhile(_is_answer, self._taken) if isinstance(item, _Read)]
            if answers:
                await self._commit(answers)
            else:
                await self._heed(self._taken[0])
            for _ in answers or (None,):
                self._taken.popleft()
        if self._items.empty():
            self._is_worked_off.set()

    async def _heed(self, item: _Item) -> None:
        match item:
            case Refused(names, is_new) if names:  # said again and again, so the mark stays new while they are out
                await self._gaps.owe(await self._covered(names), Gap.FORBIDDEN, None, is_new=is_new)
            case Readmitted(names):
                await self._gaps.owe(await self._covered(names), Gap.FORBIDDEN, self._cursor)

    async def _commit(self, answers: Sequence[_Read]) -> None:
        """Apply answers, then save the last one's cursor; before that, mark whatever it is about to pass over."""
        covered_until = self._covered_until
        for read in answers:
            for gap in self._passed(read, covered_until):
                await self._gaps.owe(await self._covered(self.names), gap, read.cursor)
            found = {item.identity.channel for item in read.decoded if not isinstance(item, Malformed)}
            await self._meet(found, read.cursor)
            covered_until = read.at
        oldest, last = answers[0].at, answers[-1]
        await self._terms.together.apply(self._applier, [item for read in answers for item in read.decoded], oldest)
        await self._save(last, oldest)
        self._cursor, self._covered_until = last.cursor, last.at
        self._halve([read.messages >= FULL_ANSWER for read in answers])

    async def _save(self, last: _Read, received: float) -> None:
        """Save the last answer's cursor, unless Redis has forgotten something that came before the oldest's.

        Raises:
            StaleError: that is long ago. The cursor would be saved as if it were of now, and PubNub's cache may not
                reach back to it any more.
            ForgottenError: Redis has.
        """

        async def save() -> int:
            async with self._terms.together.saving:
                self._expect_the_same_redis()
                self._applier.expect_fresh(received, "a cursor")
                age = self._terms.clock() - last.at
                return await self._marks.save_cursor(self.id, last.cursor, self._saves, age)

        is_first = not self._is_saved
        self._saves = await self._applier.insist(save)
        self._is_saved = True
        if is_first:  # registered again: its cursor may have been so old that somebody has forgotten whom it spoke for
            await self._applier.insist(lambda: self._marks.register(self.id, self.names.all))
        if not self._saves:
            self._applier.lineage.suspect(f"a cursor of subscription {self.id} is gone")
            raise ForgottenError("Redis has forgotten a cursor that was saved")

    def _expect_the_same_redis(self) -> None:
        if self._applier.lineage.generation != self._generation:
            raise ForgottenError("Redis went back; going on from what it still knows")

    def _halve(self, are_full: Sequence[bool]) -> None:
        """Leave a subscription whose answers stay full to two halves, which begin where it has come to."""
        most = 0
        for is_full in are_full:
            self._full_answers = self._full_answers + 1 if is_full else 0
            most = max(most, self._full_answers)
        halves = self.names.halves() if most >= HALVED_AFTER else ()
        if halves and not self._is_stopping:
            log.warning("subscription_halved", subscription=self.id, names=len(self.names.all))
            self.leave_to(Lot(half) for half in halves)

    def _passed(self, read: _Read, covered_until: float | None) -> list[Gap]:
        gaps = []
        if covered_until is None:
            gaps.append(Gap.FIRST_START)
        elif read.at - covered_until > self._terms.catchup_seconds:
            gaps.append(Gap.STALE_CURSOR)
        if read.messages >= FULL_ANSWER:
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


def _is_answer(item: _Item) -> bool:
    return isinstance(item, _Read)
