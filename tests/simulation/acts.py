"""What a seed may do to Redis and to PubNub. Each act draws its place, its time and its length."""

from collections.abc import Callable, Mapping
from copy import copy
from itertools import count
from random import Random
from typing import Any, Final

from tests.simulation.keyspace import Stream
from tests.simulation.world import HOUR, World
from worker.emulator import OUTAGE_KINDS

Act = Callable[[], float | None]
"""Does something. Returns how many seconds the history should go on, if it is to see the end."""

DENIED: Final = (
    *("hgetall", "hget", "hset", "smembers", "smismember", "sadd", "time", "info"),
    *("hscan", "zscan", "zscore", "xadd", "get", "expire", "exists", "hdel"),
    *("apply", "owe", "repay", "take_budget"),
)
"""Commands and scripts that an ACL may refuse."""
WRONG: Final = (
    *("counts", "actions", "removed", "who", "messages", "owed", "progress", "journal", "head"),
)
"""Keys of a channel that a hand may overwrite with another type."""
KEPT: Final = ("owed", "progress", "journal", "head")
"""Those of which nothing may be lost: what they say is nowhere else."""
CLOCK_STEPS: Final = (2.0, 40.0, 1200.0, 2 * HOUR)


def span(random: Random) -> float:
    """Return some minutes, or hours in which several rounds are made, or more than a day."""
    draw = random.random()
    if draw < 0.6:
        return random.uniform(60, 1800)
    if draw < 0.9:
        return random.uniform(HOUR, 6 * HOUR)
    return random.uniform(12 * HOUR, 50 * HOUR)


class RedisActs:
    """What happens to Redis, and what a hand does there."""

    def __init__(self, world: World, random: Random) -> None:
        self._world = world
        self._random = random
        self._mistyped: set[str] = set()
        """The keys that are of another type now."""
        self._numbers = count(1)
        self.all: Mapping[str, tuple[float, Act]] = {
            "redis": (5, self._lose),
            "flush": (0.5, self._flush),
            "restart": (2, self._restart),
            "clock": (2, self._step),
            "acl": (2, self._deny),
            "journal_acl": (1, self._deny_the_journal),
            "evicted": (2, self._evict),
            "recounted": (2, self._recount),
            "wrong_type": (2, self._mistype),
        }

    def _seconds(self) -> float:
        return self._random.choice((0.05, 0.5, 5.0, 100.0))

    def _lose(self) -> None:
        world, random = self._world, self._random
        draw = random.random()
        seconds = self._seconds()
        if draw < 0.25:
            world.cut_redis(seconds)
        elif draw < 0.4:
            world.restart_redis(seconds)
        elif draw < 0.7:
            skew = random.uniform(-5, 5) if random.random() < 0.3 else None
            world.fail_over(
                random.choice((0.01, 0.1, 1.0, 10.0)), random.choice((0.0, 0.0, 2.0)), skew
            )
        elif draw < 0.85:
            copied = world.copy()
            world.later(random.uniform(60, 2 * HOUR), world.put_back, copied, "is an older copy")
        else:
            world.fill_redis(seconds)

    def _flush(self) -> None:
        """Delete every key.

        Between the mark and the first cursor of a process that is killed at once, it has no sign.
        """
        if not self._world.notes.is_between_mark_and_cursor:
            self._world.flush()

    def _restart(self) -> None:
        self._world.restart_redis(self._seconds())

    def _step(self) -> None:
        step = self._random.choice(CLOCK_STEPS) * self._random.uniform(0.5, 1.5)
        self._world.step_clock(self._random.choice((-step, step)))

    def _deny(self) -> None:
        commands = self._random.sample(DENIED, self._random.randint(1, 3))
        self._world.deny(commands, self._random.choice((1.0, 30.0, 400.0)))

    def _deny_the_journal(self) -> None:
        self._world.deny(["journal"], self._random.choice((1.0, 30.0, 400.0)))

    # --- a hand ----------------------------------------------------------------------------------

    def _key(self, *kinds: str) -> str | None:
        """Return a key of one of these kinds, if there is any.

        Two hands at one message could make right what the journal has wrong.
        """
        ends = tuple(f":{kind}" for kind in kinds)
        held = [
            key
            for key in self._world.keyspace.values
            if key.endswith(ends) or any(f":{kind}:" in key for kind in kinds)
        ]
        untouched = [key for key in held if not self._world.oracle.is_tampered(key)]
        return self._random.choice(untouched) if untouched else None

    def _evict(self) -> None:
        (kind,) = self._random.choices(("counts", "actions", "who", "messages"), (3, 2, 2, 1))
        if key := self._key(kind):
            self._world.evict(key)

    def _recount(self) -> None:
        if key := self._key("counts"):
            self._world.touch(key, "is changed by a hand")
            held = self._world.keyspace.hgetall(key)
            name = self._random.choice(sorted(held))
            count = int(held[name]) + self._random.choice((-1, 1, 7))
            self._world.keyspace.hset(key, name, count)

    def _mistype(self) -> None:
        """Overwrite a key with another type; later it is as before, or gone."""
        world, random = self._world, self._random
        key = self._key(*WRONG)
        if key is None or key in self._mistyped:
            return
        self._mistyped.add(key)
        before = world.keyspace.values[key]
        number = next(self._numbers)
        wrong: Any = Stream(last=(number, 0)) if isinstance(before, str) else f"text {number}"
        world.touch(key, "is of another type")
        world.oracle.exempt.add(_channel(key))
        world.keyspace.values[key] = wrong
        is_kept = key.endswith(KEPT) or random.random() < 0.7

        def end() -> None:
            self._mistyped.discard(key)
            if world.keyspace.values.get(key) != wrong:
                return  # mended, or another hand's
            world.touch(key, "is as before" if is_kept else "is deleted")
            world.keyspace.delete(key)
            if is_kept:
                # A copy: an older Redis may bring the wrong type back, and then this value again.
                world.keyspace.values[key] = copy(before)

        world.until(random.choice((5.0, 60.0, 400.0, 2 * HOUR)), end)


class PubNubActs:
    """What PubNub does wrong for a while."""

    def __init__(self, world: World, random: Random) -> None:
        self._world = world
        self._random = random
        self.all: Mapping[str, tuple[float, Act]] = {
            "pubnub": (3, self._break),
            "unlisted": (0.7, self._unlist),
            "origin": (0.7, self._mistake),
            "pubnub_clock": (3, self._step),
        }

    def _break(self) -> None:
        world, random = self._world, self._random
        seconds = random.choice((1.0, 30.0, 200.0, 1000.0))
        if random.random() < 0.5:
            world.break_pubnub(random.choice(OUTAGE_KINDS), seconds)
        else:
            world.forbid(random.choice(world.channels), seconds)

    def _unlist(self) -> float | None:
        seconds = span(self._random)
        self._world.unlist(self._random.choice(self._world.channels), seconds)
        return self._watched(seconds)

    def _mistake(self) -> float | None:
        seconds = span(self._random)
        self._world.mistake_origin(seconds)
        return self._watched(seconds)

    def _watched(self, seconds: float) -> float | None:
        """Return how long to look on: up to the end, or some hours after it, or not at all."""
        draw = self._random.random()
        if draw < 0.4:
            return None
        return seconds if draw < 0.8 else seconds + self._random.uniform(HOUR, 4 * HOUR)

    def _step(self) -> None:
        self._world.step_pubnub_clock(self._random.uniform(-3, 3))


def _channel(key: str) -> str:
    return key.partition("{")[2].partition("}")[0]
