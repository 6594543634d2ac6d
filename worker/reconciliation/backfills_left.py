"""The backfills that a worker waits for."""

from collections.abc import Collection
from itertools import islice
from typing import Final

from worker.errors import ForbiddenError, TallyError

FEW: Final = 10
"""One channel of so many may fail without holding up the others."""
NAMED: Final = 3


class BackfillsLeft:
    """Tells what a new worker waits for, until its counts are whole."""

    def __init__(self) -> None:
        self.has_started = False
        """Whether the backfills of an earlier worker are known."""
        self._all: set[str] = set()
        self._left: set[str] = set()
        self._failed: dict[str, str] = {}
        """Channel → why it failed; empty if PubNub refuses it."""

    def add(self, channel: str) -> None:
        """Note that a backfill is wanted."""
        self._all.add(channel)
        self._left.add(channel)

    def done(self, channel: str) -> None:
        """Note that a backfill is done."""
        self._left.discard(channel)
        self._failed.pop(channel, None)

    def failed(self, channel: str, error: TallyError) -> None:
        """Note that a backfill failed. It is tried again later."""
        if channel in self._left:
            is_refused = isinstance(error, ForbiddenError)
            self._failed[channel] = "" if is_refused else str(error)

    @property
    def problem(self) -> str | None:
        """What a worker waits for; None if it waits for nothing.

        Refused channels hold nothing up, nor do a few that fail.
        """
        if not self.has_started:
            return "the backfills of an earlier worker are not known yet"

        waiting = self._left - self._failed.keys()
        if waiting:
            return f"the first backfill of {_names(waiting)} is not done yet"

        failing = {name: reason for name, reason in self._failed.items() if reason}
        if len(failing) * FEW > len(self._all):
            reason = next(iter(failing.values()))
            return f"the first backfill of {_names(failing)} fails: {reason}"

        return None


def _names(channels: Collection[str]) -> str:
    first = ", ".join(map(repr, islice(sorted(channels), NAMED)))
    more = len(channels) - NAMED
    return f"{first} and {more} more" if more > 0 else first
