"""What a run of the chaos did, and how it ended: arithmetic."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True, kw_only=True)
class Report:
    """Counted while the chaos runs."""

    seed: int
    kills: Counter[str] = field(default_factory=Counter)
    """By moment."""
    ends: Counter[int] = field(default_factory=Counter)
    """Workers that ended by themselves, by exit code."""
    restarts: Counter[str] = field(default_factory=Counter)
    """Restarts of Redis, by way."""
    disturbances: Counter[str] = field(default_factory=Counter)
    """Disturbances of Redis, by kind."""
    gaps: Counter[str] = field(default_factory=Counter)
    """Marks of something owed, by cause."""
    faults: Counter[str] = field(default_factory=Counter)
    """Faults of PubNub that struck."""
    versions: Counter[str] = field(default_factory=Counter)
    """Workers that came far enough to say it, by version."""
    beside: int = 0
    """Ends of a worker beside one of another release that listened."""
    stops: int = 0
    """Ends of a worker in order."""
    starts: int = 0
    acts: int = 0
    events: int = 0
    actions: int = 0
    checks: int = 0
    """How often every count was held against its entries."""
    broken: list[str] = field(default_factory=list)
    """Tallies that were not their live entries."""
    before: list[str] = field(default_factory=list)
    """Differences from the truth before the last reconcile."""
    after: list[str] = field(default_factory=list)
    """Differences after it."""
    reconciled: str = ""
    """The report of the reconcile."""
    chaos_seconds: float = 0.0
    repair_seconds: float = 0.0

    @property
    def is_exact(self) -> bool:
        """Whether Redis ended with the truth, and always agreed with itself."""
        return not (self.after or self.broken)

    def __str__(self) -> str:
        lines = {
            "kills": _sum(self.kills),
            "restarts": _sum(self.restarts),
            "disturbed": _sum(self.disturbances),
            "starts": f"{self.starts} workers; ended by themselves, by code: {_sum(self.ends)}",
            "versions": f"{_sum(self.versions)}; {self.beside} ended beside another release",
            "stops": str(self.stops),
            "crowd": f"{self.acts} acts; {self.events} events; {self.actions} actions in the end",
            "faults": _sum(self.faults),
            "owed": _sum(self.gaps),
            "invariant": f"{len(self.broken)} broken counts in {self.checks} checks",
            "before": f"{len(self.before)} differences before the last reconcile",
            "reconcile": self.reconciled,
            "after": f"{len(self.after)} differences after it",
            "time": f"{self.chaos_seconds:.0f} s of chaos, {self.repair_seconds:.0f} s of repair",
        }
        text = [f"{name:9}  {line}" for name, line in lines.items()]
        text += [f"  {line}" for line in (*self.broken[:10], *self.after[:10])]
        return "\n".join(text)


def _sum(counter: Counter[Any]) -> str:
    parts = ", ".join(f"{count} {name}" for name, count in sorted(counter.items(), key=str))
    return f"{counter.total()} ({parts})" if parts else "0"
