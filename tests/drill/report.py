"""What a drill has seen: the load, what was owed, and what is not the truth in the end."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from tests.comparison import broken_tallies, compare
from tests.worlds import World

LISTS: Final = ("actions", "groups")
"""Requests that bring more than events."""


@dataclass(slots=True, kw_only=True)
class Report:
    """What every drill sees; each adds its own."""

    acts: int = 0
    gaps: Counter[str] = field(default_factory=Counter)
    """Marks of something owed, by cause."""
    listed: int = 0
    """Requests that bring more than events."""
    wrong: list[str] = field(default_factory=list)
    """Differences from the truth, and counts that are not what the actions say."""

    async def compare(self, world: World, channels: Iterable[str]) -> None:
        """Note what was owed and asked for, and every difference from the truth."""
        self.gaps = gaps_of(world)
        self.listed = sum(world.emulator.requests[operation] for operation in LISTS)
        self.wrong = await compare(world, channels) + await broken_tallies(world.redis)

    def table(self, lines: Mapping[str, object]) -> str:
        """Return lines by name, then the number of differences and the first of them."""
        lines = {**lines, "differences": len(self.wrong)}
        width = max(map(len, lines)) + 1
        text = [f"{name:{width}}{line}" for name, line in lines.items()]
        return "\n".join(text + [f"  {line}" for line in self.wrong[:10]])


def gaps_of(world: World) -> Counter[str]:
    """Return how often each cause of a gap was logged, by all workers."""
    entries = (entry for child in world.children for entry in child.entries("gap"))
    return Counter(entry["cause"] for entry in entries)
