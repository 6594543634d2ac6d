"""One subscription: polls PubNub, and applies the answers in order."""

from collections.abc import Sequence
from itertools import chain

import structlog

from worker.domain.position import HANDSHAKE, Cursor
from worker.errors import StaleError
from worker.live.answer_queue import AnswerQueue, CheckRedis, DecodedAnswer
from worker.live.assignment import Assignment
from worker.live.full_answers import FullAnswers
from worker.live.gaps import CoveredChannels, everything_before
from worker.live.group_commit import GroupCommit
from worker.live.polling import Polling
from worker.live.subscription_cursor import ResumePoint, SubscriptionCursor
from worker.source.names import Names
from worker.source.refusals import Readmitted, Refused
from worker.store.pending_repairs import GapCause

log = structlog.get_logger(__name__)


class Subscription:
    """The names of one long poll, followed until it is stopped."""

    def __init__(
        self,
        assignment: Assignment[ResumePoint],
        polling: Polling,
        group_commit: GroupCommit,
        covered: CoveredChannels,
        cursor: SubscriptionCursor,
    ) -> None:
        self.names = assignment.names
        self.id = cursor.subscription
        self.polling = polling
        self.successors: tuple[Assignment[None], ...] | None = None
        """What is followed instead; None while this one runs."""
        self._joined = assignment.joined
        self._predecessor = assignment.resume_point
        self._group_commit = group_commit
        self._covered = covered
        self._cursor = cursor
        self._full_answers = FullAnswers(self.names)

    async def run(self) -> None:
        """Follow the names until ``stop`` or ``hand_over_to``."""
        while not self.polling.is_stopping:
            try:
                cursor = await self._resume()
                await self._follow(cursor)
            except StaleError as error:
                await self._drop_answers(error)
        self._cursor.end()

    def stop(self) -> None:
        """Stop polling; ``run`` ends when every answer is applied."""
        self.polling.stop()

    def hand_over_to(self, successors: Sequence[Assignment[None]]) -> None:
        """Stop, and let successors follow; do nothing if they are the same.

        Names that had yet to join it join its successors.
        """
        if [successor.names for successor in successors] == [self.names]:
            return
        joined = self._joined
        self.successors = tuple(successor.joined_by(joined) for successor in successors)
        self.stop()

    def restart_if_redis_went_back(self) -> None:
        """Go on from the cursor that Redis still knows."""
        self.polling.queue.check_redis()

    @property
    def resume_point(self) -> ResumePoint | None:
        """Where a successor goes on; None if nothing was read yet."""
        return self._cursor.resume_point or self._predecessor

    @property
    def has_begun(self) -> bool:
        """Whether PubNub's cache reaches back to the resume point.

        Where it does not, a gap is marked first.
        """
        point, longest = self.resume_point, self._covered.catchup_seconds
        return point is not None and self._cursor.age_of(point) <= longest

    async def _resume(self) -> Cursor:
        """Return the cursor to go on from; the handshake at the first start."""
        self._cursor.trust_redis()
        self._covered.begin()
        await self._cursor.register()
        await self._take_over()
        cursor = await self._cursor.load()
        await self._covered.remember(cursor)
        log.info(
            "subscription_starts",
            subscription=self.id,
            names=len(self.names.all),
            is_first=cursor is None,
        )
        return cursor or HANDSHAKE

    async def _take_over(self) -> None:
        """Go on from a predecessor's resume point, once.

        Names that join there may have missed events.
        """
        point = self._predecessor
        if point and self._joined:
            stretch = everything_before(point.cursor)
            await self._covered.owe(self._joined, GapCause.NEW_CHANNEL, stretch)
        try:
            if point:
                await self._cursor.adopt(point)
        finally:
            self._predecessor = None
            self._joined = Names()

    async def _follow(self, cursor: Cursor) -> None:
        """Poll from the cursor on, and handle what comes."""
        if self.polling.is_stopping:
            return
        async with self.polling.started(cursor) as queue:
            is_open = True
            while is_open:
                is_open = await queue.fetch()
                while queue.pending:
                    await self._handle_first(queue)

    async def _handle_first(self, queue: AnswerQueue) -> None:
        """Handle the first pending item; answers in a row together."""
        self._cursor.expect_the_same_redis()
        match queue.pending[0]:
            case DecodedAnswer():
                answers = queue.first_answers()
                await self._commit(answers)
                self._halve_if_full(answers)
                queue.drop_handled(len(answers))
                return
            case Refused(names, is_new):
                # For as long as PubNub refuses them.
                # A backfill follows when that ends.
                await self._covered.owe(names, GapCause.FORBIDDEN, None, is_new=is_new)
            case Readmitted(names):
                await self._mark_missed(names)
            case CheckRedis():
                pass  # Redis did not go back
        queue.drop_handled(1)

    async def _commit(self, answers: Sequence[DecodedAnswer]) -> None:
        """Mark gaps; apply the answers; save the newest cursor."""
        cursor = self._cursor
        await self._covered.mark_gaps(answers, cursor.newest, cursor.covered_until)
        decoded = chain.from_iterable(answer.decoded for answer in answers)
        oldest, newest = answers[0], answers[-1]
        save = cursor.next_save(newest.cursor, newest.received_at)
        await self._group_commit.apply(list(decoded), oldest.received_at, save)
        await cursor.saved(save, newest.received_at)

    async def _mark_missed(self, names: Names) -> None:
        """Mark names that PubNub refused until now."""
        stretch = everything_before(self._cursor.newest)
        await self._covered.owe(names, GapCause.FORBIDDEN, stretch)

    def _halve_if_full(self, answers: Sequence[DecodedAnswer]) -> None:
        """Hand over to two halves where answers stay full."""
        halves = self._full_answers.halves_after(answers)
        if halves and not self.polling.is_stopping:
            count = len(self.names.all)
            log.warning("subscription_halved", subscription=self.id, names=count)
            self.hand_over_to(list(map(Assignment, halves)))

    async def _drop_answers(self, error: StaleError) -> None:
        """Drop answers, which are read again, but no refusals."""
        log.warning("answer_dropped", subscription=self.id, reason=str(error))
        queue = self.polling.queue
        queue.fetch_nowait()
        for item in queue.pending:
            if isinstance(item, Refused | Readmitted):
                await self._mark_missed(item.names)
