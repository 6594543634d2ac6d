"""How much of the configured names belongs to the shard that is set."""

from dataclasses import dataclass
from typing import Any

from worker.settings.fields import Settings
from worker.source.names import Names


@dataclass(frozen=True, slots=True)
class ShardPart:
    """The shard, and how many of the configured names are its own."""

    shard: str
    own: int
    configured: int

    def __str__(self) -> str:
        return f"shard {self.shard} has {self.own} of the {self.configured} configured names"

    def as_json(self) -> dict[str, Any]:
        """Return the same, for programs."""
        return {
            "shard": self.shard,
            "own_names": self.own,
            "configured_names": self.configured,
        }


def shard_part(settings: Settings) -> ShardPart | None:
    """Return the part of the shard; None if no shard is set."""
    if settings.shard is None:
        return None
    names = Names.of(settings.all_channels(), settings.channel_groups)
    own = names.of_shard(settings.shard)
    return ShardPart(str(settings.shard), len(own.all), len(names.all))
