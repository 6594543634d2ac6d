"""What many histories come to, in numbers."""

from collections import Counter

from tests.simulation.history import Outcome


class Arithmetic:
    """Sums of outcomes."""

    def __init__(self) -> None:
        self.seeds = self.failed = self.forced = self.unrepaid = 0
        self.seeds_before = 0
        self.sums: Counter[str] = Counter()
        self.wrongly: Counter[str] = Counter()
        self.seconds = 0.0

    def add(self, outcome: Outcome) -> None:
        """Count one in."""
        self.seeds += 1
        self.failed += not outcome.is_right
        self.forced += bool(outcome.forced)
        self.unrepaid += not outcome.is_repaid
        self.seeds_before += bool(outcome.before)
        self.seconds += outcome.virtual_seconds
        self.sums["before"] += len(outcome.before)
        self.sums["after"] += len(outcome.after)
        for name in ("acts", "events", "kills", "stops", "suspensions", "redis_faults", "requests", "calls", "steps"):
            self.sums[name] += getattr(outcome, name)
        self.wrongly.update(outcome.wrongly)

    def told(self, seconds: float) -> str:
        """Return them as text."""
        sums = self.sums
        return "\n".join(
            [
                f"{self.seeds} seeds in {seconds:.0f} s: {60 * self.seeds / max(seconds, 1e-3):.0f} a minute; "
                f"{self.seconds / 86400:.1f} days of their time; {sums['steps']} steps",
                f"{sums['acts']} acts, {sums['events']} events published, {sums['kills']} kills, {sums['stops']} stops, "
                f"{sums['suspensions']} suspensions, {sums['redis_faults']} faults of Redis, {sums['calls']} commands of "
                f"Redis, {sums['requests']} requests of PubNub",
                f"wrong for a while: {self.wrongly['pruned']} prunes, {self.wrongly['restored']} restorations",
                f"before the final reconcile {sums['before']} differences in {self.seeds_before} seeds; "
                f"in {self.unrepaid} seeds something was still owed after half an hour of calm",
                f"forced in {self.forced} seeds: more would have been pruned than the limit allows unasked",
                f"after it {sums['after']} differences; {self.failed} seeds failed",
            ]
        )


def table(seeds: int, first: int, processes: int) -> str:
    """Return a line for each fault alone, and for all of them."""
    raise NotImplementedError
