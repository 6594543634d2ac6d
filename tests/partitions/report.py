"""What partitions did, and how a run ended."""

from collections import Counter
from dataclasses import dataclass, field


@dataclass(slots=True, kw_only=True)
class Report:
    """What happened, and how it ended."""

    seed: int
    ways: Counter[str] = field(default_factory=Counter)
    acts: int = 0
    kills: int = 0
    failovers: int = 0
    gaps: Counter[str] = field(default_factory=Counter)
    losses: Counter[str] = field(default_factory=Counter)
    uncounted_seconds: float = 0.0
    """The longest time until a reaction was counted, of all channels."""
    repair_seconds: float = 0.0
    ends: Counter[int] = field(default_factory=Counter)
    """Workers that ended by themselves, by exit code."""
    crashes: list[str] = field(default_factory=list)
    """The end of the log of each worker with a traceback."""
    differences: list[str] = field(default_factory=list)
    verified: int = -1
    """The exit code of ``tally verify``."""

    @property
    def is_exact(self) -> bool:
        """Whether the tallies are PubNub's truth."""
        return not (self.differences or self.crashes or self.verified)

    def __str__(self) -> str:
        lines = [
            f"partitions {self.ways.total()} {dict(self.ways)}, {self.failovers} failovers",
            f"{self.kills} kills of workers; ended by themselves, by code: {dict(self.ends)}",
            f"acts {self.acts}; gaps {dict(self.gaps)}; losses {dict(self.losses)}",
            f"at most {self.uncounted_seconds:.1f} s until a reaction was counted",
            f"nothing was owed {self.repair_seconds:.1f} s after the last healing",
            f"{len(self.differences)} differences; tally verify ended with {self.verified}",
        ]
        return "\n".join([*lines, *self.crashes, *self.differences[:20]])
