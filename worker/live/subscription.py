"""One subscription: polls PubNub and applies the answers, side by side and in order."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import structlog

from worker.applying.apply import RolledBackError, StaleError
from worker.domain.position import HANDSHAKE, Cursor
from worker.live.answer_handler import AnswerHandler, FullAnswers
from worker.live.answer_queue import AnswerQueue, DecodedAnswer
from worker.live.assignment import Assignment
from worker.live.covered_channels import CoveredChannels
from worker.live.group_commit import GroupCommit
from worker.live.polling import Polling
from worker.live.resume_point import ResumePoint, SavedPosition
from worker.source.live import Poller
from worker.source.names import Names
from worker.source.wire import CountedTypes
from worker.store.pending_repairs import GapCause

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
        names = assignment.names
        self.names = names
        self.id = position.subscription
        self.polling = Polling(poller, config.counted_types, config.clock)
        self.successors: tuple[Assignment[None], ...] | None = None
        """What is followed instead, from the resume point; None while this one runs."""
        self._joined = assignment.joined
        self._predecessor = assignment.resume_point
        self._covered = covered
        self._position = position
        self._config = config
        self._handler = AnswerHandler(
            names, group_commit, covered, position, config.catchup_seconds
        )
        self._full_answers = FullAnswers()

    async def run(self) -> None:
        """Follow the names until ``stop`` or ``hand_over_to``.

        The names go on where they were left.
        """
        while not self.polling.is_stopping:
            try:
                cursor = await self._resume()
                await self._follow(cursor)
            except StaleError as error:
                await self._drop_answers(error)

    def stop(self) -> None:
        """Stop polling.

        ``run`` ends when every answer is applied and the cursor saved.
        """
        self.polling.stop()

    def hand_over_to(self, successors: Iterable[Assignment[None]]) -> None:
        """Stop; the successors are followed instead.

        Names that had yet to join this subscription join its successors.
        """
        self.successors = tuple(successor.joined_by(self._joined) for successor in successors)
        self.stop()

    def reread(self) -> None:
        """Go on from the cursor that Redis still knows, if Redis went back."""
        self.polling.wake()

    @property
    def resume_point(self) -> ResumePoint | None:
        """Where a successor goes on; None if nothing was read yet."""
        return self._position.point or self._predecessor

    @property
    def has_begun(self) -> bool:
        """Whether PubNub's cache reaches back to the resume point.

        Where it does not, a gap is marked before the resume point moves.
        """
        point = self.resume_point
        if point is None:
            return False
        age = self._config.clock() - point.covered_until
        return age <= self._config.catchup_seconds

    async def _resume(self) -> Cursor:
        """Return the cursor to go on from; the handshake at the first start."""
        self._position.begin()
        self._covered.begin(self.names)
        await self._position.register()
        await self._take_over()
        await self._covered.remember(self.names)

        cursor = await self._position.load()
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
        point, joined = self._predecessor, self._joined
        if point and joined:
            await self._covered.owe(joined, GapCause.NEW_CHANNEL, point.cursor)
        try:
            if point:
                await self._position.adopt(point)
        except RolledBackError:
            self._forget_predecessor()
            raise
        self._forget_predecessor()

    def _forget_predecessor(self) -> None:
        self._predecessor = None
        self._joined = Names()

    async def _follow(self, cursor: Cursor) -> None:
        """Poll from the cursor on, and handle what comes, until ``stop``."""
        if self.polling.is_stopping:
            return
        async with self.polling.started(cursor) as queue:
            while await queue.fetch():
                await self._handle_pending(queue)
            await self._handle_pending(queue)

    async def _handle_pending(self, queue: AnswerQueue) -> None:
        """Handle the pending items in order; answers in a row together."""
        while queue.pending:
            self._position.expect_the_same_redis()
            answers = queue.first_answers()
            if answers:
                await self._handler.commit(answers)
                self._halve_if_full(answers)
            else:
                await self._handler.mark_refusal(queue.pending[0])
            queue.drop_handled(len(answers) or 1)

    def _halve_if_full(self, answers: Sequence[DecodedAnswer]) -> None:
        """Hand over to two halves where answers stay full."""
        are_too_many = self._full_answers.are_too_many(answers)
        if not are_too_many or self.polling.is_stopping:
            return
        halves = self.names.halves()
        if halves:
            names = len(self.names.all)
            log.warning("subscription_halved", subscription=self.id, names=names)
            self.hand_over_to(Assignment(half) for half in halves)

    async def _drop_answers(self, error: StaleError) -> None:
        """Drop the queued answers, which are read again, but not the refusals."""
        log.warning("answer_dropped", subscription=self.id, reason=str(error))
        queue = self.polling.queue
        queue.fetch_nowait()
        await self._handler.mark_dropped(queue.pending)
