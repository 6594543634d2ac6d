"""What a demo is asked to do, and what came of it."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from worker.demo.comparison import Difference

SHOWN_DIFFERENCES = 10


@dataclass(frozen=True, slots=True)
class Plan:
    """How long the crowd reacts, how often in a second, and which faults the emulator has at which rate."""

    seconds: float
    rate: float
    seed: int
    faults: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Result:
    """What happened: ``events`` the emulator published, ``actions`` alive at the end, ``differing`` tallies."""

    plan: Plan
    seconds: float
    events: int
    messages: int
    actions: int
    deeds: Mapping[str, int]
    differing: tuple[Difference, ...]

    @property
    def differences(self) -> int:
        """How many tallies (channel, message, type, value) are not what they should be."""
        return len(self.differing)

    @property
    def events_per_second(self) -> float:
        """Events published over the time the crowd reacted."""
        return self.events / self.seconds if self.seconds else 0.0

    def as_json(self) -> dict[str, Any]:
        """Return the members of the final JSON object."""
        return {
            "events": self.events,
            "messages": self.messages,
            "actions": self.actions,
            "differences": self.differences,
            "events_per_second": round(self.events_per_second, 1),
            "seconds": round(self.seconds, 1),
            "seed": self.plan.seed,
            "faults": dict(self.plan.faults),
            "crowd": dict(self.deeds),
            "differing": [asdict(difference) for difference in self.differing[:SHOWN_DIFFERENCES]],
        }
