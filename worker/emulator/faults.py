"""What can go wrong with PubNub, each with a rate, all drawn from one seeded source.

Event faults strike one published event, answer faults one subscribe answer, list faults one get-actions page, storage
faults one stored action, request faults one request. A rate is a probability from 0 (never) to 1 (whenever possible).
"""

from collections import Counter
from collections.abc import Mapping
from enum import StrEnum
from random import Random
from typing import Final


class Fault(StrEnum):
    """The known faults; the value is the name used in settings and over HTTP."""

    DUPLICATE = "duplicate"
    """Event: delivered twice, in one answer or again in a later one. Copies do not use up the catch-up cache."""
    REORDER = "reorder"
    """Answer: its messages are shuffled."""
    LATE = "late"
    """Event: held back for up to half a second, then delivered although its publish time is behind the cursor."""
    AHEAD = "ahead"
    """Event: published up to 0.1 s after the cursor of the answer that carries it."""
    REWIND = "rewind"
    """Answer: its cursor goes back up to 64 ms under another region, so the next one repeats messages."""
    LOST = "lost"
    """Event: published, and never delivered."""
    UNPUBLISHED = "unpublished"
    """Storage: an addition or removal is done and answered 207, and no event is published."""
    STALE = "stale"
    """List: shows the channel as it was up to three seconds ago."""
    EMPTY = "empty"
    """List: a 200 that says there is nothing."""
    PARTIAL = "partial"
    """List: a 200 with some items missing and no sign of it."""
    TIE = "tie"
    """Storage: an added action shares the timetoken of the channel's previous one."""
    MORE = "more"
    """List: the server stops early for its own reasons and says `more`. Pages of fewer than three items are spared."""
    TWIN = "twin"
    """Storage: one identity is stored twice, at once or instead of a 409. The truth counts an identity once."""
    READD = "readd"
    """Storage: an identity that was removed and is added again gets a smaller timetoken than it had."""
    FORBIDDEN = "forbidden"
    """Request: 403, naming one channel or group of those asked for."""
    THROTTLE = "throttle"
    """Request: 429 with `Retry-After`."""
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
    """Decides, from one seeded source, which fault strikes when: the same calls in the same order give the same faults.

    A fault with rate 0 draws nothing, so adding one at rate 0 changes no history.
    """

    def __init__(self, rates: Mapping[str, float] | None, random: Random) -> None:
        self.random = random
        self.struck: Counter[str] = Counter()
        self._rates: dict[str, float] = {}
        self.replace(rates or {})

    @property
    def rates(self) -> dict[str, float]:
        """The rates in force, without the zeros."""
        return dict(self._rates)

    def replace(self, rates: Mapping[str, float]) -> None:
        """Set all rates: what is not named is 0. ValueError for an unknown name or a rate outside 0 to 1."""
        for name, rate in rates.items():
            if name not in FAULT_NAMES:
                raise ValueError(
                    f"unknown fault {name!r}; the known ones are {', '.join(sorted(FAULT_NAMES))}"
                )
            if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 <= rate <= 1:
                raise ValueError(f"the rate of {name!r} must be a number from 0 to 1, not {rate!r}")
        self._rates = {str(name): float(rate) for name, rate in rates.items() if rate}

    def strikes(self, fault: Fault) -> bool:
        """Tell whether this fault strikes now, and count it if so."""
        rate = self._rates.get(fault)
        if rate is None or self.random.random() >= rate:
            return False
        self.struck[fault] += 1
        return True

    def delay(self) -> float:
        """Return the seconds a request takes longer; 0 when no latency strikes."""
        return self.random.uniform(0.001, 0.05) if self.strikes(Fault.LATENCY) else 0.0
