"""The options of a demo, and its result."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from worker.demo.comparison import Comparison
from worker.demo.user import Outcome

SHOWN_DIFFERENCES: Final = 10


@dataclass(frozen=True, slots=True)
class Plan:
    """The options of a demo.

    ``rate`` is in reactions a second.
    ``faults`` maps each fault's name to its rate, 0 to 1.
    """

    seconds: float
    rate: float
    seed: int
    faults: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Result:
    """The result of a demo.

    ``seconds`` is how long the crowd reacted.
    ``crowd`` maps each outcome, for example ``added``, to its number.
    """

    plan: Plan
    seconds: float
    crowd: Mapping[Outcome, int]
    comparison: Comparison

    @property
    def differences(self) -> int:
        """The number of wrong counts."""
        return len(self.comparison.differences)

    @property
    def events_per_second(self) -> float:
        """The rate of published events."""
        return self.comparison.events / self.seconds

    def as_json(self) -> dict[str, Any]:
        """Return the JSON object that ``tally demo --json`` prints."""
        comparison = self.comparison
        shown = comparison.differences[:SHOWN_DIFFERENCES]
        return {
            "events": comparison.events,
            "messages": comparison.messages,
            "actions": comparison.actions,
            "differences": self.differences,
            "events_per_second": round(self.events_per_second, 1),
            "seconds": round(self.seconds, 1),
            "seed": self.plan.seed,
            "faults": dict(self.plan.faults),
            "crowd": {outcome.value: number for outcome, number in self.crowd.items()},
            "differing": [asdict(difference) for difference in shown],
        }
