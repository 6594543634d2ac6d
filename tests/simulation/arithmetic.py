"""Sums over many histories."""

from collections import Counter

from tests.simulation.history import Outcome

SUMMED = (
    "acts",
    "events",
    "kills",
    "stops",
    "suspensions",
    "redis_faults",
    "requests",
    "calls",
    "steps",
)


class Arithmetic:
    """Sums of outcomes."""

    def __init__(self) -> None:
        self.seeds = self.failed = self.forced = self.unrepaired = self.differed = 0
        self.before = self.after = 0
        self.sums: Counter[str] = Counter()
        self.wrongly: Counter[str] = Counter()
        self.seconds = 0.0

    def add(self, outcome: Outcome) -> None:
        """Add one outcome."""
        self.seeds += 1
        self.failed += not outcome.is_right
        self.forced += bool(outcome.forced)
        self.unrepaired += not outcome.is_repaired
        self.differed += bool(outcome.before)
        self.seconds += outcome.virtual_seconds
        self.before += len(outcome.before)
        self.after += len(outcome.after)
        for name in SUMMED:
            self.sums[name] += getattr(outcome, name)
        self.wrongly.update(outcome.wrongly)

    def as_text(self, seconds: float) -> str:
        """Return the sums as text."""
        sums, rate = self.sums, 60 * self.seeds / max(seconds, 1e-3)
        took = f"{self.seconds / 86400:.1f} days of their time, {sums['steps']} steps"
        unrepaired = f"in {self.unrepaired} something was still owed after half an hour of calm"
        interrupted = (
            f"{sums['kills']} kills, {sums['stops']} stops, {sums['suspensions']} suspensions"
        )
        lines = (
            f"{self.seeds} seeds in {seconds:.0f} s, {rate:.0f} a minute: {took}",
            (
                f"{sums['acts']} acts, {sums['events']} events, {interrupted},"
                f" {sums['redis_faults']} faults of Redis"
            ),
            f"{sums['calls']} commands of Redis, {sums['requests']} requests of PubNub",
            (
                f"wrong for a while: {self.wrongly['pruned']} prunes,"
                f" {self.wrongly['restored']} restorations"
            ),
            (
                f"before the final reconcile: {self.before} differences in {self.differed} seeds;"
                f" {unrepaired}"
            ),
            f"forced in {self.forced} seeds, which would have lost more than the limit allows",
            f"after it: {self.after} differences; {self.failed} seeds failed",
        )
        return "\n".join(lines)
