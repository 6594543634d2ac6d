"""Writes that count only once some replicas have them: ``TALLY_WAIT_REPLICAS``."""

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from redis.exceptions import ResponseError

from worker.store.answers import first_error, is_error

WAIT_MILLISECONDS: Final = 1000
"""How long replicas may take to have a write."""


class Wait(NamedTuple):
    """How many replicas must have what a server was sent, and how long that may take."""

    replicas: int = 0
    milliseconds: int = WAIT_MILLISECONDS

    @property
    def commands(self) -> Sequence[tuple[Any, ...]]:
        """The command that waits; none if no replica must have anything."""
        return [("WAIT", *self)] if self.replicas else []

    def check(
        self,
        answers: Sequence[Any],
        counts: Sequence[Any],
        address: str = "",
    ) -> list[Any]:
        """Return the answers; or, if too few replicas have the writes, that error for each.

        ``counts`` are the answers to ``commands``, from the server at ``address``.
        """
        refusal = first_error(self._check_count(count, address) for count in counts)
        if refusal is None:
            return [*answers]
        # The error of a command says more.
        return [answer if is_error(answer) else refusal for answer in answers]

    def _check_count(self, count: Any, address: str) -> Any:
        """Return the number of replicas; or the error for a write that too few have."""
        if is_error(count) or count >= self.replicas:
            return count
        of_server = f"of {address} " if address else ""
        return ResponseError(
            f"NOREPLICAS {count} of {self.replicas} replicas "
            f"(TALLY_WAIT_REPLICAS) {of_server}"
            f"had a write within {self.milliseconds} ms. "
            "Bring replicas back, or lower TALLY_WAIT_REPLICAS."
        )
