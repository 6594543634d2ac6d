"""Which looks are due, and in which order: pure functions of times.

Times are milliseconds since 1970, by PubNub's clock.
"""

import math
from collections import Counter
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Final
from zlib import crc32

from worker.domain.position import TICKS_PER_MILLISECOND, Range
from worker.store.proofs import Proof

ROUNDS_AN_INTERVAL: Final = 4
"""Rounds in the shortest interval."""
SLACK_ROUNDS: Final = 2
"""A look comes earlier by so many rounds."""
HOUR: Final = 3_600.0
DAY: Final = 24 * HOUR
EARLY: Final = 1 / 4
"""The part of ``full`` over which looks at everything are spread."""
RECHECK_SECONDS: Final = 2 * HOUR
"""After a prune everything is looked at again."""
CLASSES: Final = 4
"""Waits within a quarter of an interval are equal."""
FEW_REQUESTS: Final = 3
"""What a look at up to a hundred actions costs."""
QUIET_REQUESTS: Final = 2
"""Between 1, where nothing is listed, and 3."""
ROUNDS_AN_ACTIVE_LOOK: Final = 2.5
"""Rounds between two looks at an active channel."""


class Activity(Enum):
    """How lately a channel has changed."""

    ACTIVE = auto()
    """Within ``every``."""
    QUIET = auto()
    """Within ``full``."""
    SILENT = auto()
    """Longer ago, or never."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """A look that is due."""

    channel: str
    wanted: Range
    """The actions to look at."""
    proof: Proof
    """What was known when the look was planned."""
    waited: float
    """How long ago the channel was proven, in intervals."""

    def is_made(self, proof: Proof) -> bool:
        """Tell whether another worker has made the look meanwhile."""
        if self.wanted == Range():
            return proof.whole > self.proof.whole
        return proof.recent > self.proof.recent

    @property
    def order(self) -> int:
        """The sort key: the longest wait first."""
        return -int(self.waited * CLASSES)


@dataclass(frozen=True, slots=True)
class Schedule:
    """How often a channel is looked at. Times are seconds."""

    every: float
    """Between two looks at the recent past of an active channel."""
    window: float
    """The recent past."""
    full: float
    """From one look at everything to the end of the next."""
    rate: float
    """Requests that may be sent, in one second."""
    shards: int = 1
    """The shards that share this rate, each with channels of its own."""

    @property
    def period(self) -> float:
        """From the beginning of one round to the next."""
        return min(self.every, self.full) / ROUNDS_AN_INTERVAL

    def activity(self, changed: int, at: int) -> Activity:
        """Return how lately a channel had changed at that time."""
        seconds = (at - changed) / 1000
        if seconds <= self.every:
            return Activity.ACTIVE
        if seconds <= self.full:
            return Activity.QUIET
        return Activity.SILENT

    def recent_interval(self, activity: Activity) -> float:
        """Return the seconds between two looks at the recent past.

        For a silent channel, looks at everything are enough.
        """
        slack = SLACK_ROUNDS * self.period
        intervals = {
            Activity.ACTIVE: self.every - slack,
            Activity.QUIET: max(self.every, min(DAY, self.full)) - slack,
            Activity.SILENT: math.inf,
        }
        return intervals[activity]

    def full_interval(self, fraction: float) -> float:
        """Return the seconds between two looks at everything.

        Each channel has a ``fraction`` of its own, from 0 to 1:
        what was repaired together is not looked at together for ever.
        """
        slack = min(2 * self.every, self.full / 2)
        return self.full - slack - EARLY * self.full * fraction

    def recheck(self, channel: str, now: int) -> int:
        """Return a proof of which a look is due in two hours."""
        interval = self.full_interval(_fraction(channel))
        seconds = RECHECK_SECONDS - interval
        return now + round(1000 * seconds)

    def due(self, channel: str, proof: Proof, now: int) -> Look | None:
        """Return the look at a channel that is due; None if none is."""
        # After an upgrade no channel was ever proven.
        # Then active ones come first.
        whole = proof.whole or _before(now, self.full)
        recent = max(proof.recent, proof.whole)
        if not recent:
            recent = _before(now, 2 * self.every)

        whole_interval = self.full_interval(_fraction(channel))
        whole_waited = (now - whole) / 1000 / whole_interval
        activity = self.activity(proof.changed, recent)
        recent_interval = self.recent_interval(activity)
        recent_waited = (now - recent) / 1000 / recent_interval

        waited = max(whole_waited, recent_waited)
        if waited < 1:
            return None
        wanted = Range()
        if whole_waited < 1:
            wanted = self._recent(recent, now)
        return Look(
            channel=channel,
            wanted=wanted,
            proof=proof,
            waited=waited,
        )

    def _recent(self, proven: int, now: int) -> Range:
        """Return the window.

        It reaches back to what was published just before the last look.
        """
        window = _before(now, self.window)
        unseen = _before(proven, self.every)
        since = min(window, unseen)
        return Range(str(max(1, since * TICKS_PER_MILLISECOND)))


def _before(moment: int, seconds: float) -> int:
    return moment - round(1000 * seconds)


def _fraction(channel: str) -> float:
    """Return a channel's own number, from 0 to 1."""
    return crc32(channel.encode()) / 2**32


@dataclass(slots=True)
class Load:
    """What rounds have to do."""

    schedule: Schedule
    activities: Counter[Activity] = field(default_factory=Counter)
    """How many channels are like that."""

    def add(self, proof: Proof, now: int) -> None:
        """Count a channel."""
        self.activities[self.schedule.activity(proof.changed, now)] += 1

    @property
    def channels(self) -> int:
        """All of them."""
        return self.activities.total()

    @property
    def active(self) -> int:
        """Those that changed lately."""
        return self.activities[Activity.ACTIVE]

    @property
    def requests_an_hour(self) -> float:
        """An estimate; channels of many reactions cost more."""
        schedule = self.schedule
        quiet = self.activities[Activity.QUIET]
        active_interval = ROUNDS_AN_ACTIVE_LOOK * schedule.period
        quiet_interval = schedule.recent_interval(Activity.QUIET)
        looks = [
            FEW_REQUESTS * self.active / active_interval,
            QUIET_REQUESTS * quiet / quiet_interval,
            FEW_REQUESTS * self.channels / schedule.full_interval(1 / 2),
        ]
        return HOUR * sum(looks)

    @property
    def minutes_an_hour(self) -> float:
        """The minutes that an hour's looks take."""
        return self.requests_an_hour / self.schedule.rate / 60

    @property
    def hours_of_all(self) -> float:
        """The hours that a look at everything of each channel takes.

        Nothing else may use the rate meanwhile.
        """
        requests = FEW_REQUESTS * self.channels
        return requests / self.schedule.rate / HOUR

    @property
    def problem(self) -> str | None:
        """Why the schedule cannot be kept; None if it can."""
        rate, shards = self.schedule.rate, self.schedule.shards
        needed = self.requests_an_hour / HOUR
        if needed <= rate / shards:
            return None
        shared = f", for {shards} shards together" if shards > 1 else ""
        return (
            f"Rounds need {needed:.2g} requests a second, "
            f"and TALLY_HISTORY_RATE is {rate:g}{shared}. "
            "Losses that nobody noticed are found later than promised. "
            "Raise TALLY_HISTORY_RATE, or TALLY_RECONCILE_SECONDS."
        )
