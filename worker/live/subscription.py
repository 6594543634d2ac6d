"""One subscription: polls PubNub and applies its answers side by side; its cursor moves in order."""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import structlog

from worker.applying.apply import RolledBackError, StaleError
from worker.domain.position import HANDSHAKE, Cursor
from worker.live.answer_queue import AnswerQueue, DecodedAnswer, Item
from worker.live.assignment import Assignment
from worker.live.covered_channels import CoveredChannels
from worker.live.group_commit import GroupCommit
from worker.live.resume_point import ResumePoint, SavedPosition
from worker.source.live import Poller, Readmitted, Received, Refused
from worker.source.names import Names
from worker.source.wire import CountedTypes, Malformed, decode_message
from worker.store.pending_repairs import GapCause

FULL_ANSWER: Final = 100
"""Messages of an answer that may lack some: PubNub drops what exceeds them without a sign."""
BUSY_ANSWER: Final = FULL_ANSWER // 2
"""Messages of an answer after which the next poll begins at once.

After a smaller answer the poll waits until that answer is applied.
What happens meanwhile comes in one answer; hundreds of subscriptions would else poll for each event.
"""
APPLY_WAIT_SECONDS: Final = 0.5
"""The longest such wait. While Redis hangs, polling goes on: PubNub keeps only one answer's worth."""
HALVED_AFTER: Final = 3
"""Full answers in a row after which a subscription is halved: PubNub's limit is for one answer."""
LATE_SECONDS: Final = 90.0
"""Seconds after a poll was due until it counts as stuck: a busy or suspended machine is late."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class SubscriptionConfig:
    """What all subscriptions of a worker share.

    ``catchup_seconds`` is how far PubNub's cache reaches back.
    ``clock`` gives seconds that never go back.
    """

    counted_types: CountedTypes
    catchup_seconds: float
    clock: Callable[[], float]


class State(StrEnum):
    """What a subscription does."""

    STARTING = "starting"
    FOLLOWING = "following"
    WAITING = "waiting"
    """It waits for Redis: to take PubNub's answers, or to tell the cursor."""
    UNREACHABLE = "unreachable"
    REFUSED = "refused"
    """PubNub answers 403 for some of its names."""
    STOPPING = "stopping"


class Subscription:
    """The names of one long poll, followed until it is stopped."""

    def __init__(
        self,
        assignment: Assignment[ResumePoint],
        poller: Poller,
        group_commit: GroupCommit,
        covered: CoveredChannels,
        position: SavedPosition,
        config: SubscriptionConfig,
    ) -> None:
        self.names = assignment.names
        self.id = position.subscription
        self._joined = assignment.joined
        self._predecessor = assignment.resume_point
        self._poller = poller
        self._group_commit = group_commit
        self._covered = covered
        self._position = position
        self._config = config
        self._queue = AnswerQueue()
        self._polling: asyncio.Task[None] | None = None
        self._full_answers = 0
        self._is_stopping = False
        self.successors: tuple[Assignment[None], ...] | None = None
        """What is followed instead of this subscription, from its resume point; None while it runs."""

    async def run(self) -> None:
        """Follow the names, from where they were left, until ``stop`` or ``hand_over_to``."""
        while not self._is_stopping:
            try:
                cursor = await self._resume()
                await self._follow(cursor)
            except StaleError as error:
                log.warning("answer_dropped", subscription=self.id, reason=str(error))
                await self._mark_dropped_refusals()

    def stop(self) -> None:
        """Stop polling; ``run`` ends when every answer is applied and the cursor saved."""
        self._is_stopping = True
        if self._polling:
            self._polling.cancel()

    def hand_over_to(self, successors: Iterable[Assignment[None]]) -> None:
        """Stop; the successors are followed instead. Names that had yet to join, join them."""
        self.successors = tuple(successor.joined_by(self._joined) for successor in successors)
        self.stop()

    def reread(self) -> None:
        """Go on from the cursor that Redis still knows, if Redis went back."""
        if self._polling:
            self._queue.wake()

    @property
    def resume_point(self) -> ResumePoint | None:
        """Where a successor goes on; None if nothing was read yet."""
        return self._position.point or self._predecessor

    @property
    def is_refused(self) -> bool:
        """Whether PubNub refuses every name: all are marked, and there is nothing to poll."""
        return self._poller.is_refused

    @property
    def has_begun(self) -> bool:
        """Whether PubNub's cache reaches back to the resume point.

        Where it does not, a gap is marked before the resume point moves.
        """
        point = self.resume_point
        if point is None:
            return False
        return self._config.clock() - point.covered_until <= self._config.catchup_seconds

    @property
    def state(self) -> State:
        """What it does."""
        if self._is_stopping:
            return State.STOPPING
        if self._polling and (self._polling.done() or self._queue.is_full):
            return State.WAITING
        return State(self._poller.state)

    @property
    def is_stuck(self) -> bool:
        """Whether one poll has been under way for longer than any poll takes."""
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
        """How many answers wait to be applied, or are being applied."""
        return len(self._queue)

    async def _resume(self) -> Cursor:
        """Return the cursor to go on from; the handshake at the first start."""
        self._position.begin()
        self._covered.begin(self.names)
        await self._position.register()
        await self._take_over()
        await self._covered.remember(self.names)
        cursor = await self._position.load()
        names, is_first = len(self.names.all), cursor is None
        log.info("subscription_starts", subscription=self.id, names=names, is_first=is_first)
        return cursor or HANDSHAKE

    async def _take_over(self) -> None:
        """Go on from a predecessor's resume point; names that join there may have missed events."""
        point, joined = self._predecessor, self._joined
        if point:
            if joined:
                await self._covered.owe(joined, GapCause.NEW_CHANNEL, point.cursor)
            try:
                await self._position.adopt(point)
            except RolledBackError:
                self._predecessor, self._joined = None, Names()
                raise
        self._predecessor, self._joined = None, Names()

    async def _follow(self, cursor: Cursor) -> None:
        if self._is_stopping:
            return
        queue = self._queue = AnswerQueue()
        polling = self._polling = asyncio.create_task(self._poll(cursor, queue))
        # However polling ends, even cancelled before its first step, the other side notices.
        polling.add_done_callback(lambda _: queue.close())
        try:
            while await queue.fetch():
                await self._handle_pending(queue)
            await self._handle_pending(queue)
        finally:
            polling.cancel()
            await asyncio.wait([polling])
        if not polling.cancelled():
            polling.result()

    async def _poll(self, cursor: Cursor, queue: AnswerQueue) -> None:
        async with aclosing(self._poller.items(cursor)) as items:  # type: ignore[type-var] # it is a generator
            async for item in items:
                if not isinstance(item, Received):
                    await queue.put(item)
                    continue
                answer = decode(
                    item, self._config.counted_types
                )  # while Redis works on the answer before
                await queue.put(answer)
                if answer.messages < BUSY_ANSWER:
                    await queue.wait_until_empty(APPLY_WAIT_SECONDS)

    async def _handle_pending(self, queue: AnswerQueue) -> None:
        """Handle the pending items in order; answers in a row at once."""
        while queue.pending:
            self._position.expect_the_same_redis()
            answers = queue.first_answers()
            if answers:
                await self._commit(answers)
            else:
                await self._mark_refusal(queue.pending[0])
            queue.drop_handled(len(answers) or 1)

    async def _mark_refusal(self, item: Item) -> None:
        match item:
            case Refused(names, is_new) if names:  # repeated: the mark stays new all the while
                await self._covered.owe(names, GapCause.FORBIDDEN, None, is_new=is_new)
            case Readmitted(names):
                await self._covered.owe(names, GapCause.FORBIDDEN, self._position.cursor)

    async def _mark_dropped_refusals(self) -> None:
        """Mark what dropped refusals say; the answers between them are read again."""
        self._queue.fetch_nowait()
        for item in self._queue.pending:
            if isinstance(item, Refused | Readmitted) and item.names:
                await self._covered.owe(item.names, GapCause.FORBIDDEN, self._position.cursor)

    async def _commit(self, answers: Sequence[DecodedAnswer]) -> None:
        """Mark what the answers pass over; apply them; save the cursor of the last one."""
        covered_until = self._position.covered_until
        for answer in answers:
            for cause in _gaps_before(answer, covered_until, self._config.catchup_seconds):
                await self._covered.owe(self.names, cause, answer.cursor)
            await self._covered.discover(_channels(answer), answer.cursor)
            covered_until = answer.received_at
        decoded = [item for answer in answers for item in answer.decoded]
        await self._group_commit.apply(decoded, answers[0].received_at)
        await self._position.save(answers[-1].cursor, answers[-1].received_at)
        self._halve_if_full(answers)

    def _halve_if_full(self, answers: Sequence[DecodedAnswer]) -> None:
        """Hand over to two halves where answers stay full."""
        are_full = [answer.messages >= FULL_ANSWER for answer in answers]
        self._full_answers, most = _full_in_a_row(are_full, self._full_answers)
        halves = self.names.halves() if most >= HALVED_AFTER else ()
        if halves and not self._is_stopping:
            log.warning("subscription_halved", subscription=self.id, names=len(self.names.all))
            self.hand_over_to(Assignment(half) for half in halves)


def decode(received: Received, counted_types: CountedTypes) -> DecodedAnswer:
    """Return an answer with its messages decoded; messages of other kinds are left out."""
    messages = received.answer.messages
    items = [decode_message(message, counted_types) for message in messages]
    decoded = [item for item in items if item]
    return DecodedAnswer(received.answer.cursor, received.at, len(messages), decoded)


def _gaps_before(
    answer: DecodedAnswer, covered_until: float | None, catchup_seconds: float
) -> Iterator[GapCause]:
    """Yield why events may be missing up to the end of this answer."""
    if covered_until is None:
        yield GapCause.FIRST_START
    elif answer.received_at - covered_until > catchup_seconds:
        yield GapCause.STALE_CURSOR
    if answer.messages >= FULL_ANSWER:
        yield GapCause.OVERFLOW


def _full_in_a_row(are_full: Iterable[bool], before: int) -> tuple[int, int]:
    """Return how many full answers in a row there are at the end, and were at most."""
    count = most = before
    for is_full in are_full:
        count = count + 1 if is_full else 0
        most = max(most, count)
    return count, most


def _channels(answer: DecodedAnswer) -> set[str]:
    events = (item for item in answer.decoded if not isinstance(item, Malformed))
    return {event.identity.channel for event in events}
