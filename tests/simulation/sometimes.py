"""Which interesting states histories reach, and how often. A state nobody reaches is not tested."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from tests.simulation.faults import ALL

ENOUGH_SEEDS: Final = 2000
"""So many seeds reach every state."""
COMMON_SEEDS: Final = 40
"""So many seeds reach every common state."""


@dataclass(frozen=True, slots=True)
class State:
    """An interesting state."""

    name: str
    needs: str = ""
    """A fault without which nobody reaches it."""
    is_common: bool = False
    """Whether some dozens of seeds are enough."""


def _rare(name: str, needs: str = "") -> State:
    return State(name, needs)


def _common(name: str) -> State:
    return State(name, is_common=True)


STATES: Final = (
    _common("a gap during a look"),
    _rare("an overflow during a look"),
    _common("a kill during a look"),
    _rare("a gap between the passes"),
    _common("a kill between the passes"),
    _rare("a stop between the passes"),
    _rare("a suspension between the passes"),
    _rare("a failover between the passes"),
    _rare("a failover between mark and cursor"),
    _rare("a kill between mark and cursor"),
    _common("two workers look at one channel"),
    _rare("names change during a look"),
    _common("SIGHUP before the first poll"),
    _common("ten starts within two minutes"),
    _rare("a backfill resumed after a kill"),
    _rare("a look resumed after a kill"),
    _common("a look begun again after a kill"),
    _rare("a look that could not prove something"),
    _common("a look that pruned"),
    _common("a look that shows nothing, of many entries"),
    _rare("the limit refuses"),
    _common("the origin refuses"),
    _rare("a prune undone by a later look"),
    _rare("an action restored"),
    _common("an addition barred by a tombstone"),
    _common("an addition superseded"),
    _common("a removal before its addition"),
    _common("a 403 during a look"),
    _rare("a 429 during a look"),
    _rare("a subscription halved"),
    _common("an answer dropped"),
    _rare("a page dropped"),
    _rare("Redis away during a look"),
    _rare("Redis full during a look"),
    _rare("Redis refuses a command during a look"),
    _common("Redis went back"),
    _common("Redis restarted, and nothing is lost"),
    _rare("a journal entry refused", needs="journal_acl"),
    _rare("a cursor of the future", needs="clock"),
    _rare("a clock step during a budget wait", needs="clock"),
    _rare("a key of the wrong type met", needs="wrong_type"),
    _common("wrong counts repaired"),
    _common("a round in a history"),
)


class Table:
    """In how many histories each state was reached, and how often."""

    def __init__(self, faults: frozenset[str] = ALL) -> None:
        self.states = [state for state in STATES if state.needs in {"", *faults}]
        self._is_complete = faults >= ALL
        self.seeds = 0
        self._reaching: Counter[str] = Counter()
        self._times: Counter[str] = Counter()

    def add(self, reached: Counter[str]) -> None:
        """Add what one history reached."""
        self.seeds += 1
        self._times.update(reached)
        self._reaching.update(reached.keys())

    @property
    def missing(self) -> list[str]:
        """The states that so many histories with all faults should have reached, and none did."""
        return [
            state.name
            for state in self.states
            if self._is_complete
            and self.seeds >= (COMMON_SEEDS if state.is_common else ENOUGH_SEEDS)
            and not self._reaching[state.name]
        ]

    def lines(self) -> Iterator[str]:
        """Yield a line for each state."""
        yield "   seeds     times  sometimes"
        for state in self.states:
            name = state.name
            yield f"{self._reaching[name]:8} {self._times[name]:9}  {name}"
