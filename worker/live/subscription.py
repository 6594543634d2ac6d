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

from worker.applying.apply import Applier, RolledBackError, StaleError
from worker.domain.action import Observed
from worker.domain.position import HANDSHAKE, Cursor
from worker.errors import PubNubError
from worker.live.assignment import Assignment
from worker.live.gaps import Gaps
from worker.live.group_commit import GroupCommit
from worker.source.client import Client
from worker.source.live import Poller, Readmitted, Received, Refused
from worker.source.names import Names, matches
from worker.source.wire import CountedTypes, Malformed, decode_message
from worker.store.keys import digest
from worker.store.marks import GapCause, Marks

FULL_ANSWER: Final = 100
"""Messages in an answer from which on there may have been more: PubNub drops the rest without a word."""
QUEUED_ANSWERS: Final = 8
"""Answers that wait while others are applied; those that waited are applied together, for one round trip."""
BUSY_ANSWER: Final = FULL_ANSWER // 2
"""Messages in an answer from which on the next is asked for at once.

After fewer it waits until these are applied: what happens meanwhile comes in one answer, where subscriptions by the
hundred would else be polled for each single event.
"""
APPLY_WAIT_SECONDS: Final = 0.5
"""How long it waits for that at most: while Redis hangs it reads ahead, for PubNub keeps only an answer's worth."""

LATE_SECONDS: Final = 90.0
"""How long after an answer was due somebody still asks again, on a busy machine, or on one that was suspended."""

log = structlog.get_logger(__name__)

HALVED_AFTER: Final = 3
"""Full answers in a row after which a subscription is halved: PubNub's limit is for one answer, whoever shares it."""


@dataclass(frozen=True, slots=True)
class SubscriptionConfig:
    """How the subscriptions of a worker are followed."""

    counted_types: CountedTypes
    catchup_seconds: float
    clock: Callable[[], float]
    group_commit: GroupCommit = field(default_factory=GroupCommit)


@dataclass(frozen=True, slots=True)
class _Answer:
    """An answer, decoded: its cursor, when it came, and how many messages of all kinds it had."""

    cursor: Cursor
    at: float
    messages: int
    decoded: Sequence[Observed | Malformed]


_Item = _Answer | Refused | Readmitted


@dataclass(frozen=True, slots=True)
class ResumePoint:
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
        self,
        assignment: Assignment[ResumePoint],
        poller: Poller,
        applier: Applier,
        marks: Marks,
        config: SubscriptionConfig,
        client: Client,
        gaps: Gaps,
    ) -> None:
        self.names = assignment.names
        self.id = digest(self.names.all)
        self._taken_over, self._joined = assignment.resume_point, assignment.joined
        self._poller = poller
        self._applier = applier
        self._marks = marks
        self._config = config
        self._client = client
        self._gaps = gaps
        self.successors: tuple[Assignment[None], ...] | None = None
        """What is to be followed in place of this subscription, from where it has come to."""
        self._seen: set[str] = set()
        self._cursor: Cursor | None = None
        self._saves = 0
        self._is_saved = False
        self._full_answers = 0
        self._generation = applier.rollback_detector.generation
        self._covered_until: float | None = None
        self._items: asyncio.Queue[_Item | None] = asyncio.Queue()
        self._room = asyncio.Semaphore(QUEUED_ANSWERS)
        self._taken: deque[_Item] = deque()
        self._is_drained = asyncio.Event()
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

    def hand_over_to(self, successors: Iterable[Assignment[None]]) -> None:
        """Stop; the heirs are to be followed instead. What was to join this one and has not yet, is to join them."""
        self.successors = tuple(
            Assignment(
                successor.names,
                None,
                successor.joined | self._joined.only(frozenset(successor.names.all)),
            )
            for successor in successors
        )
        self.stop()

    @property
    def resume_point(self) -> ResumePoint | None:
        """Where it has come to; None if nothing was read yet."""
        if self._cursor and self._covered_until is not None:
            return ResumePoint(self.id, self._cursor, self._covered_until, self._saves)
        return self._taken_over

    @property
    def is_refused(self) -> bool:
        """Whether PubNub refuses every one of its names: it is owed, and has nothing to ask for."""
        return self._poller.is_refused

    @property
    def has_begun(self) -> bool:
        """Whether PubNub's cache reaches back to its place; where it did not, that is marked before the place moves."""
        resume_point = self.resume_point
        return (
            resume_point is not None
            and self._config.clock() - resume_point.covered_until <= self._config.catchup_seconds
        )

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
        return self._config.clock() - self._poller.due_at > LATE_SECONDS

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
            self._items.put_nowait(
                Refused(Names())
            )  # of nobody: it makes whoever waits for items look

    async def _resume(self) -> Cursor:
        self._generation = self._applier.rollback_detector.generation
        self._seen = set(self.names.channels)
        await self._take_over()
        await self._applier.insist(lambda: self._marks.remember(self.names.channels))
        saved = await self._applier.insist(lambda: self._marks.cursor(self.id))
        self._saves = saved.saves if saved else 0
        self._cursor = saved.cursor if saved else None
        self._covered_until = self._config.clock() - saved.age_seconds if saved else None
        log.info(
            "subscription_starts",
            subscription=self.id,
            names=len(self.names.all),
            is_first=saved is None,
        )
        return self._cursor or HANDSHAKE

    async def _take_over(self) -> None:
        """Begin where another subscription has come to; who joins only here may have missed what came before."""
        await self._applier.insist(lambda: self._marks.register(self.id, self.names.all))
        if resume_point := self._taken_over:
            if self._joined:
                await self._gaps.owe(
                    await self._covered(self._joined), GapCause.NEW_CHANNEL, resume_point.cursor
                )
            await self._adopt(resume_point)
        self._taken_over, self._joined = None, Names()

    async def _adopt(self, resume_point: ResumePoint) -> None:
        """Save the other's cursor as this one's.

        Raises:
            ForgottenError: Redis knows less than it did; this one goes on from what it still knows.
        """
        known = await self._applier.insist(lambda: self._marks.cursor(resume_point.subscription))
        if known is None or known.saves < resume_point.saves:
            self._taken_over, self._joined = None, Names()
            self._applier.rollback_detector.suspect(
                f"a cursor of subscription {resume_point.subscription} is gone"
            )
            raise RolledBackError("Redis has forgotten a cursor that was saved")

        async def save() -> int:
            age = (
                self._config.clock() - resume_point.covered_until
            )  # of now: Redis may be away for long before it is saved
            return await self._marks.save_cursor(self.id, resume_point.cursor, age_seconds=age)

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
                    await self._drain()
            await self._drain()
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
                await self._gaps.owe(
                    await self._covered(item.names), GapCause.FORBIDDEN, self._cursor
                )

    async def _poll(
        self, cursor: Cursor, items: asyncio.Queue[_Item | None], room: asyncio.Semaphore
    ) -> None:
        async with aclosing(self._poller.items(cursor)) as polled:  # type: ignore[type-var] # it is a generator
            async for item in polled:
                # Decoded here, while Redis is at work on what came before.
                read = self._read(item) if isinstance(item, Received) else item
                self._is_drained.clear()
                items.put_nowait(read)
                await room.acquire()
                if isinstance(read, _Answer) and read.messages < BUSY_ANSWER:
                    with suppress(TimeoutError):
                        async with asyncio.timeout(APPLY_WAIT_SECONDS):
                            await self._is_drained.wait()

    def _read(self, received: Received) -> _Answer:
        messages, counted_types = received.answer.messages, self._config.counted_types
        decoded = [item for message in messages if (item := decode_message(message, counted_types))]
        return _Answer(received.answer.cursor, received.at, len(messages), decoded)

    async def _drain(self) -> None:
        """Take in what has come, in order; answers in a row at once. What fails stays, so that it can be marked."""
        while self._taken:
            self._expect_the_same_redis()
            answers = [
                item for item in takewhile(_is_answer, self._taken) if isinstance(item, _Answer)
            ]
            if answers:
                await self._commit(answers)
            else:
                await self._handle_refusal(self._taken[0])
            for _ in answers or (None,):
                self._taken.popleft()
        if self._items.empty():
            self._is_drained.set()

    async def _handle_refusal(self, item: _Item) -> None:
        match item:
            case Refused(names, is_new) if (
                names
            ):  # said again and again, so the mark stays new while they are out
                await self._gaps.owe(
                    await self._covered(names), GapCause.FORBIDDEN, None, is_new=is_new
                )
            case Readmitted(names):
                await self._gaps.owe(await self._covered(names), GapCause.FORBIDDEN, self._cursor)

    async def _commit(self, answers: Sequence[_Answer]) -> None:
        """Apply answers, then save the last one's cursor; before that, mark whatever it is about to pass over."""
        covered_until = self._covered_until
        for read in answers:
            for gap in self._passed(read, covered_until):
                await self._gaps.owe(await self._covered(self.names), gap, read.cursor)
            found = {
                item.identity.channel for item in read.decoded if not isinstance(item, Malformed)
            }
            await self._discover(found, read.cursor)
            covered_until = read.at
        oldest, last = answers[0].at, answers[-1]
        await self._config.group_commit.apply(
            self._applier, [item for read in answers for item in read.decoded], oldest
        )
        await self._save(last, oldest)
        self._cursor, self._covered_until = last.cursor, last.at
        self._halve([read.messages >= FULL_ANSWER for read in answers])

    async def _save(self, last: _Answer, received: float) -> None:
        """Save the last answer's cursor, unless Redis has forgotten something that came before the oldest's.

        Raises:
            StaleError: that is long ago. The cursor would be saved as if it were of now, and PubNub's cache may not
                reach back to it any more.
            ForgottenError: Redis has.
        """

        async def save() -> int:
            async with self._config.group_commit.saving:
                self._expect_the_same_redis()
                self._applier.expect_fresh(received, "a cursor")
                age = self._config.clock() - last.at
                return await self._marks.save_cursor(self.id, last.cursor, self._saves, age)

        is_first = not self._is_saved
        self._saves = await self._applier.insist(save)
        self._is_saved = True
        if is_first:  # registered again: its cursor may have been so old that somebody has forgotten whom it spoke for
            await self._applier.insist(lambda: self._marks.register(self.id, self.names.all))
        if not self._saves:
            self._applier.rollback_detector.suspect(f"a cursor of subscription {self.id} is gone")
            raise RolledBackError("Redis has forgotten a cursor that was saved")

    def _expect_the_same_redis(self) -> None:
        if self._applier.rollback_detector.generation != self._generation:
            raise RolledBackError("Redis went back; going on from what it still knows")

    def _halve(self, are_full: Sequence[bool]) -> None:
        """Leave a subscription whose answers stay full to two halves, which begin where it has come to."""
        most = 0
        for is_full in are_full:
            self._full_answers = self._full_answers + 1 if is_full else 0
            most = max(most, self._full_answers)
        halves = self.names.halves() if most >= HALVED_AFTER else ()
        if halves and not self._is_stopping:
            log.warning("subscription_halved", subscription=self.id, names=len(self.names.all))
            self.hand_over_to(Assignment(half) for half in halves)

    def _passed(self, read: _Answer, covered_until: float | None) -> list[GapCause]:
        gaps = []
        if covered_until is None:
            gaps.append(GapCause.FIRST_START)
        elif read.at - covered_until > self._config.catchup_seconds:
            gaps.append(GapCause.STALE_CURSOR)
        if read.messages >= FULL_ANSWER:
            gaps.append(GapCause.OVERFLOW)
        return gaps

    async def _discover(self, channels: set[str], cursor: Cursor) -> None:
        if unmet := channels - self._seen:
            await self._gaps.discover(unmet, cursor)
            self._seen |= unmet

    async def _covered(self, names: Names) -> frozenset[str]:
        """Return the channels these names stand for; where that cannot be told, all that were ever seen."""
        channels = set(names.channels)
        if names.wildcards or names.groups:
            known = await self._applier.insist(self._marks.channels) | self._seen
            channels.update(
                name
                for name in known
                if any(matches(wildcard, name) for wildcard in names.wildcards)
            )
            for members in await asyncio.gather(
                *(self._group(group, known) for group in names.groups)
            ):
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
    return isinstance(item, _Answer)
