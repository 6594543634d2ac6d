"""PubNub's faults. Each has a rate, and all come from one seeded source.

A rate is a probability, from 0 (never) to 1 (whenever possible). It is
drawn for each event, answer, list, stored action or request.
"""

from collections import Counter
from collections.abc import Mapping
from enum import StrEnum
from random import Random
from typing import Final


class Fault(StrEnum):
    """The faults. The value is the name in settings and over HTTP."""

    DUPLICATE = "duplicate"
    """Event: delivered twice, in one answer or again in a later one."""
    REORDER = "reorder"
    """Answer: its messages are shuffled."""
    LATE = "late"
    """Event: delivered up to half a second later, behind the cursor."""
    AHEAD = "ahead"
    """Event: published up to 0.1 s after its answer's cursor."""
    REWIND = "rewind"
    """Answer: its cursor goes back up to 64 ms, in another region."""
    LOST = "lost"
    """Event: published, and never delivered."""
    UNPUBLISHED = "unpublished"
    """Storage: a change is stored and answered 207, without event."""
    STALE = "stale"
    """List: shows the channel as it was up to three seconds ago."""
    EMPTY = "empty"
    """List: a 200 without actions."""
    EMPTY_CHANNEL = "empty_channel"
    """List: one channel lists nothing for up to an hour. The others list as usual."""
    PARTIAL = "partial"
    """List: a 200 that lacks some actions, without a sign."""
    TIE = "tie"
    """Storage: an action gets the timetoken of the channel's last one."""
    MORE = "more"
    """List: the server stops early and says ``more``, after two actions at least."""
    TWIN = "twin"
    """Storage: one identity is stored twice, at once or instead of a 409."""
    READD = "readd"
    """Storage: an identity that is added again gets a smaller timetoken."""
    FORBIDDEN = "forbidden"
    """Request: 403, with the name of one channel or group."""
    THROTTLE = "throttle"
    """Request: 429 with ``Retry-After``."""
    SERVER_ERROR = "server_error"
    """Request: 5xx with an HTML body."""
    BAD_JSON = "bad_json"
    """Request: 200 with a body that is not JSON."""
    DROP = "drop"
    """Request: the connection is closed without an answer."""
    LATENCY = "latency"
    """Request: takes up to 50 ms longer."""


FAULT_NAMES: Final = tuple(str(fault) for fault in Fault)


class Faults:
    """Draws whether a fault strikes.

    The same calls in the same order give the same faults. A fault with
    rate 0 draws nothing.
    """

    def __init__(self, rates: Mapping[str, float], random: Random) -> None:
        self.random = random
        self.struck: Counter[str] = Counter()
        self.replace(rates)

    def replace(self, rates: Mapping[str, float]) -> None:
        """Set all rates. A fault that is not named gets 0.

        Raises:
            ValueError: A name is unknown, or a rate is not from 0 to 1.
        """
        for name, rate in rates.items():
            if name not in FAULT_NAMES:
                known = ", ".join(sorted(FAULT_NAMES))
                raise ValueError(f"unknown fault {name!r}; the known ones are {known}")
            if not isinstance(rate, int | float) or not 0 <= rate <= 1:
                raise ValueError(f"the rate of {name!r} must be a number from 0 to 1, not {rate!r}")
        self._rates = dict(rates)

    def strikes(self, fault: Fault) -> bool:
        """Draw whether this fault strikes now, and count it."""
        rate = self._rates.get(fault)
        if not rate or self.random.random() >= rate:
            return False
        self.struck[fault] += 1
        return True

    def delay(self) -> float:
        """Return the additional seconds of a request."""
        if self.strikes(Fault.LATENCY):
            return self.random.uniform(0.001, 0.05)
        return 0.0
