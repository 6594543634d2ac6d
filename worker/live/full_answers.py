"""How a full answer is handled: PubNub drops what exceeds it without a sign.

- ``CoveredChannels`` marks all channels where an answer ``is_full``.
- ``Subscription`` hands over to the halves of ``FullAnswers``.
- ``Polling`` polls again at once after a ``BUSY_ANSWER``.
"""

from collections.abc import Iterable
from typing import Final

from worker.live.answer_queue import DecodedAnswer
from worker.source.names import Names

FULL_ANSWER: Final = 100
"""Messages of a full answer."""
HALVED_AFTER: Final = 3
"""Full answers in a row after which a subscription is halved.

PubNub's limit is for one answer, so two subscriptions get twice as much.
"""
BUSY_ANSWER: Final = FULL_ANSWER // 2
"""Messages of an answer after which the next poll begins at once.

After a smaller one the poll waits until it is applied.
What happens meanwhile comes in one answer.
Otherwise hundreds of subscriptions would poll for each event.
"""


def is_full(answer: DecodedAnswer) -> bool:
    """Tell whether an answer may lack messages."""
    return answer.messages >= FULL_ANSWER


class FullAnswers:
    """Counts the full answers in a row of one subscription."""

    def __init__(self, names: Names) -> None:
        self._names = names
        self._in_a_row = 0

    def halves_after(self, answers: Iterable[DecodedAnswer]) -> tuple[Names, ...]:
        """Count these answers; return the halves that take over, if any.

        A single name has no halves.
        """
        most = 0
        for answer in answers:
            self._in_a_row = self._in_a_row + 1 if is_full(answer) else 0
            most = max(most, self._in_a_row)
        return self._names.halves() if most >= HALVED_AFTER else ()
