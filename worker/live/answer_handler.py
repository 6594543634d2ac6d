"""What an answer of PubNub leads to: marks for gaps, tallies, a newer cursor."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from worker.live.answer_queue import DecodedAnswer, Item
from worker.live.covered_channels import CoveredChannels
from worker.live.group_commit import GroupCommit
from worker.live.resume_point import SavedPosition
from worker.source.live import Received
from worker.source.names import Names
from worker.source.refusals import Readmitted, Refused
from worker.source.wire import CountedTypes, Malformed, decode_message
from worker.store.pending_repairs import GapCause

FULL_ANSWER: Final = 100
"""Messages of an answer that may lack some.

PubNub drops what exceeds them without a sign.
"""
HALVED_AFTER: Final = 3
"""Full answers in a row after which a subscription is halved.

PubNub's limit is for one answer, so two subscriptions get twice as much.
"""


class AnswerHandler:
    """Handles the answers of one subscription, in their order."""

    def __init__(
        self,
        names: Names,
        group_commit: GroupCommit,
        covered: CoveredChannels,
        position: SavedPosition,
        catchup_seconds: float,
    ) -> None:
        """``catchup_seconds`` is how far PubNub's cache reaches back."""
        self._names = names
        self._group_commit = group_commit
        self._covered = covered
        self._position = position
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
        await self._position.save(newest.cursor, newest.received_at)

    async def mark_refusal(self, item: Item) -> None:
        """Mark names that PubNub refuses, or refused until now."""
        if isinstance(item, Readmitted):
            await self._mark_forbidden(item.names)
        elif isinstance(item, Refused) and item.names:
            # While PubNub goes on refusing, the mark is renewed.
            await self._covered.owe(
                item.names,
                GapCause.FORBIDDEN,
                None,
                is_new=item.is_new,
            )

    async def mark_dropped(self, items: Iterable[Item]) -> None:
        """Mark the refusals among items that are dropped.

        The answers among the items are read again.
        """
        for item in items:
            if isinstance(item, Refused | Readmitted) and item.names:
                await self._mark_forbidden(item.names)

    async def _mark_forbidden(self, names: Names) -> None:
        cursor = self._position.cursor
        await self._covered.owe(names, GapCause.FORBIDDEN, cursor)

    async def _mark_gaps(self, answers: Sequence[DecodedAnswer]) -> None:
        covered_until = self._position.covered_until
        for answer in answers:
            cursor = answer.cursor
            for cause in self._gaps_before(answer, covered_until):
                await self._covered.owe(self._names, cause, cursor)
            channels = {
                item.identity.channel for item in answer.decoded if not isinstance(item, Malformed)
            }
            await self._covered.discover(channels, cursor)
            covered_until = answer.received_at

    def _gaps_before(
        self,
        answer: DecodedAnswer,
        covered_until: float | None,
    ) -> Iterator[GapCause]:
        """Yield why events may be missing up to the end of this answer."""
        if covered_until is None:
            yield GapCause.FIRST_START
        elif answer.received_at - covered_until > self._catchup_seconds:
            yield GapCause.STALE_CURSOR
        if answer.messages >= FULL_ANSWER:
            yield GapCause.OVERFLOW


class FullAnswers:
    """Counts full answers in a row."""

    def __init__(self) -> None:
        self._count = 0

    def are_too_many(self, answers: Iterable[DecodedAnswer]) -> bool:
        """Count these answers; tell whether ``HALVED_AFTER`` in a row were full."""
        most = 0
        for answer in answers:
            is_full = answer.messages >= FULL_ANSWER
            self._count = self._count + 1 if is_full else 0
            most = max(most, self._count)
        return most >= HALVED_AFTER


def decode(received: Received, counted_types: CountedTypes) -> DecodedAnswer:
    """Return an answer with its messages decoded.

    Messages that are no message actions of counted types are left out.
    """
    messages = received.answer.messages
    items = [decode_message(message, counted_types) for message in messages]
    decoded = [item for item in items if item]
    cursor = received.answer.cursor
    return DecodedAnswer(cursor, received.at, len(messages), decoded)
