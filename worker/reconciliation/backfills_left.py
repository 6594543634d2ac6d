"""The backfills that a worker still wants, for its readiness."""

from collections.abc import Collection
from itertools import islice
from typing import Final

from worker.errors import ForbiddenError, TallyError

FEW: Final = 10
"""One channel of so many may fail without holding up the readiness of all others."""
NAMED: Final = 3


class BackfillsLeft:
    """Tells what a new worker waits for, until its counts are whole."""

    def __init__(self) -> None:
        self.has_started = False
        """Whether the backfills of an earlier worker are known."""
        self._all: set[str] = set()
        self._left: set[str] = set()
        self._refused: set[str] = set()
        self._failing: dict[str, str] = {}

    def add(self, channel: str) -> None:
        """Note that a backfill is wanted."""
        self._all.add(channel)
        self._left.add(channel)

    def done(self, channel: str) -> None:
        """Note that a backfill is done."""
        self._left.discard(channel)
        self._refused.discard(channel)
        self._failing.pop(channel, None)

    def failed(self, channel: str, error: TallyError) -> None:
        """Note that a backfill failed. It is tried again later."""
        if channel not in self._left:
            return
        if isinstance(error, ForbiddenError):
            self._refused.add(channel)
        else:
            self._failing[channel] = str(error)

    @property
    def problem(self) -> str | None:
        """What a worker waits for; None if it waits for nothing.

        A channel that PubNub refuses holds nothing up, nor do a few that fail.
        """
        if not self.has_started:
            return "the backfills of an earlier worker are not known yet"

        waiting = self._left - self._refused - self._failing.keys()
        if waiting:
            return f"the first backfill of {_names(waiting)} is not done yet"

        if len(self._failing) * FEW > len(self._all):
            reason = next(iter(self._failing.values()))
            return f"the first backfill of {_names(self._failing.keys())} fails: {reason}"

        return None


def _names(channels: Collection[str]) -> str:
    first = ", ".join(map(repr, islice(sorted(channels), NAMED)))
    more = len(channels) - NAMED
    return f"{first} and {more} more" if more > 0 else first
