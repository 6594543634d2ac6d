"""What an answer of PubNub leads to: marks for gaps, tallies, a newer cursor."""

from collections.abc import Sequence

from worker.live.answer_queue import DecodedAnswer
from worker.live.covered_channels import CoveredChannels
from worker.live.full_answers import is_full
from worker.live.group_commit import GroupCommit
from worker.live.subscription_cursor import SubscriptionCursor
from worker.source.live import Readmitted, Refused
from worker.source.names import Names
from worker.source.wire import Malformed
from worker.store.pending_repairs import GapCause


class AnswerHandler:
    """Handles the answers of one subscription, in their order."""

    def __init__(
        self,
        names: Names,
        group_commit: GroupCommit,
        covered: CoveredChannels,
        cursor: SubscriptionCursor,
        catchup_seconds: float,
    ) -> None:
        """``catchup_seconds`` is how far PubNub's cache reaches back."""
        self._names = names
        self._group_commit = group_commit
        self._covered = covered
        self._cursor = cursor
        self._catchup_seconds = catchup_seconds

    async def commit(self, answers: Sequence[DecodedAnswer]) -> None:
        """Mark gaps; apply the answers; save the newest cursor.

        Raises:
            StaleError: the answers waited for too long.
            RolledBackError: Redis went back to an older state.
        """
        await self._mark_gaps(answers)
        decoded = [item for answer in answers for item in answer.decoded]
        oldest, newest = answers[0], answers[-1]
        await self._group_commit.apply(decoded, oldest.received_at)
        await self._cursor.save(newest.cursor, newest.received_at)

    async def mark_refusal(self, refusal: Refused | Readmitted) -> None:
        """Mark names that PubNub refuses, or refused until now."""
        if isinstance(refusal, Readmitted):
            await self.mark_missed(refusal.names)
            return
        # The mark is renewed for as long as PubNub refuses. A backfill follows when it ends.
        names, is_new = refusal.names, refusal.is_new
        await self._covered.owe(names, GapCause.FORBIDDEN, None, is_new=is_new)

    async def mark_missed(self, names: Names) -> None:
        """Mark names that missed events up to now, because PubNub refused them."""
        await self._covered.owe(names, GapCause.FORBIDDEN, self._cursor.newest)

    async def _mark_gaps(self, answers: Sequence[DecodedAnswer]) -> None:
        """Mark what may be missing up to the end of each answer."""
        covered_until = self._cursor.covered_until
        for answer in answers:
            cursor, received_at = answer.cursor, answer.received_at
            causes: list[GapCause] = []
            if covered_until is None:
                causes.append(GapCause.FIRST_START)
            elif received_at - covered_until > self._catchup_seconds:
                causes.append(GapCause.STALE_CURSOR)
            if is_full(answer):
                causes.append(GapCause.OVERFLOW)
            for cause in causes:
                await self._covered.owe(self._names, cause, cursor)

            events = [item for item in answer.decoded if not isinstance(item, Malformed)]
            channels = {event.identity.channel for event in events}
            await self._covered.discover(channels, cursor)
            covered_until = received_at
