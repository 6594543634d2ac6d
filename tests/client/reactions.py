"""The reactions to a message, in plain Python, and as a worker writes them: see the contract."""

from collections import Counter
from collections.abc import Iterator
from typing import Any, Final

from reaction_tally import Reactor
from reaction_tally.keys import RANKED_ABOVE, WHO_EPOCH, Keys, action_field, tally_field
from tests.histories import CHANNEL, MESSAGE

KEYS: Final = Keys()
BEGAN: Final = 17_600_000_001_728_660
Tally = tuple[str, str]
"""Type and value."""


class Reactions:
    """Who reacted to the message, with what, and when."""

    def __init__(self, ranked_above: int = RANKED_ABOVE) -> None:
        self._ranked_above = ranked_above
        self.at: dict[tuple[Tally, str], str] = {}

    def add(self, user: str, at: str, tally: Tally = ("reaction", "👍")) -> None:
        """Add a reaction, or replace it by a newer one."""
        self.at[tally, user] = at

    def remove(self, user: str, tally: Tally = ("reaction", "👍")) -> None:
        """Take a reaction back."""
        self.at.pop((tally, user), None)

    def tallies(self) -> Counter[Tally]:
        """Return the counts."""
        return Counter(tally for tally, _ in self.at)

    def who(self, tally: Tally = ("reaction", "👍")) -> list[Reactor]:
        """Return who reacted, oldest first."""
        reactors = [Reactor(user, at) for (each, user), at in self.at.items() if each == tally]
        return sorted(reactors, key=lambda each: (int(each.at), each.user.encode()))

    @property
    def is_ranked(self) -> bool:
        """Whether each tally has a sorted set."""
        return len(self.at) > self._ranked_above

    def commands(self) -> Iterator[tuple[Any, ...]]:
        """Yield what writes all of it anew."""
        counts, actions, _ = KEYS.message(CHANNEL, MESSAGE)
        yield "DEL", counts, actions
        for (type, value), count in self.tallies().items():
            yield "HSET", counts, tally_field(type, value), count
        for ((type, value), user), at in self.at.items():
            yield "HSET", actions, action_field(type, value, user), at
            if self.is_ranked:
                yield "ZADD", who_key((type, value)), int(at) - WHO_EPOCH, user


def who_key(tally: Tally = ("reaction", "👍")) -> str:
    """Return the sorted set of a tally."""
    return KEYS.who(CHANNEL, MESSAGE, tally_field(*tally))


def crowd(count: int, *tallies: Tally) -> Reactions:
    """Return so many users, who choose one tally after the other."""
    reactions = Reactions()
    chosen = tallies or (("reaction", "👍"),)
    for number in range(count):
        # The names are in another order than the times.
        user = f"u{(number * 7_919) % 100_003}"
        reactions.add(user, str(BEGAN + number), chosen[number % len(chosen)])
    return reactions


async def write(redis: Any, reactions: Reactions) -> None:
    """Write all of it at once."""
    pipe = redis.pipeline(transaction=True)
    async for key in redis.scan_iter(f"tally:{{{CHANNEL}}}:who:*"):
        pipe.delete(key)
    for command in reactions.commands():
        pipe.execute_command(*command)
    await pipe.execute()
