"""From PubNub's answer to Redis: the worker beside what a team would write, in three shapes."""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

from tests.benchmarks.answering import ANSWER
from tests.benchmarks.harness import Benchmark, Figure, Line, Ratio
from tests.benchmarks.load import history
from tests.benchmarks.race import (
    CONTENDERS,
    DAYS_WORK,
    DAYS_WORKS,
    EVERYSEC,
    HERE,
    WORKER,
    Contender,
    Course,
    race,
)

EVENTS: Final = 99_000
SPARSE_EVENTS: Final = 5_000
SPARSE_RATE: Final = 500
LEAST_ANSWERS: Final = 2

MISSING: Final = "".join(
    f" Left out, because this machine lacks it: {contender.name}."
    for contender in CONTENDERS
    if not contender.is_here
)


@lru_cache(maxsize=1)
def busy(size: float) -> Course:
    """Twenty channels by their names, full answers."""
    events = history(whole(EVENTS * size, ANSWER), channels=20)
    names = sorted({event.identity.channel for event in events})
    return Course(events=events, names=names)


@lru_cache(maxsize=1)
def wide(size: float) -> Course:
    """Five thousand channels under a wildcard, full answers."""
    count = whole(EVENTS * size, ANSWER)
    events = history(count, channels=5_000, messages=20_000, name="rooms.{:04d}")
    return Course(events=events, names=["rooms.*"])


@lru_cache(maxsize=1)
def sparse(size: float) -> Course:
    """A hundred channels under a wildcard, one event an answer."""
    count = whole(SPARSE_EVENTS * size, 1)
    return Course(
        events=history(count, channels=100, messages=5_000, name="rooms.{:04d}"),
        names=["rooms.*"],
        in_an_answer=1,
        answers_a_second=SPARSE_RATE,
    )


def whole(count: float, in_an_answer: int) -> int:
    """Return so many events, in whole answers."""
    return max(LEAST_ANSWERS, round(count / in_an_answer)) * in_an_answer


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """A course, and who runs it."""

    name: str
    work: str
    course: Callable[[float], Course]
    contenders: Sequence[Contender] = HERE
    configuration: tuple[tuple[str, str], ...] = ()
    is_rate_given: bool = False
    _rounds: Iterator[int] = field(default_factory=itertools.count, init=False, compare=False)
    """The numbers of the rounds to come."""

    @property
    def benchmark(self) -> Benchmark:
        """The shape as a benchmark."""
        return Benchmark(self.name, self.work, tuple(self.lines()), self.round)

    async def round(self, size: float) -> Mapping[str, float]:
        """Let every contender count once; each round begins with another one."""
        course = self.course(size)
        values: dict[str, float] = {}
        for contender in self.turns(next(self._rounds)):
            result = await race(contender, course, **dict(self.configuration))
            values |= result.values(contender.key)
        return values

    def turns(self, number: int) -> Sequence[Contender]:
        """Return the order of a round: no contender always comes first."""
        first = number % len(self.contenders)
        return [*self.contenders[first:], *self.contenders[:first]]

    def lines(self) -> Iterator[Line]:
        """Yield the figures of each contender, then ours beside each day's work."""
        for contender in self.contenders:
            yield from figures(contender)
        for peer in self.contenders:
            if peer in DAYS_WORKS:
                yield from self.ratios(peer)

    def ratios(self, peer: Contender) -> Iterator[Line]:
        """Yield ours beside a peer."""
        ours = f"ours / {peer.name}"
        target = 1 if peer is DAYS_WORK else None
        if not self.is_rate_given:
            yield Ratio("worker_rate", f"{peer.key}_rate", f"rate, {ours}", at_least=target)
        yield Ratio("worker_cpu", f"{peer.key}_cpu", f"CPU, {ours}", at_most=target)
        yield Ratio("worker_redis", f"{peer.key}_redis", f"Redis's CPU, {ours}")


def figures(contender: Contender) -> Iterator[Line]:
    """Yield what is measured of one contender; its first row says what it lacks."""
    key, name = contender.key, contender.name
    lacks = f" ({contender.lacks})" if contender.lacks else ""
    yield Figure(f"{key}_rate", name + lacks, "events/s")
    yield Figure(f"{key}_cpu", f"{name}: CPU an event", "µs")
    yield Figure(f"{key}_redis", f"{name}: Redis's CPU an event", "µs")


BUSY: Final = Shape(
    name="busy",
    work=f"{EVENTS:,} events (15 % removals, 2 % repeated) on 5,000 messages of 20 named channels, "
    "99 an answer, over loopback into a Valkey. Each contender is a process of its own; the "
    "documented listener gets a fifth of the events. Every result is compared with the truth, or "
    "with the wrong counts that are expected of it." + MISSING,
    course=busy,
).benchmark
WIDE: Final = Shape(
    name="wide",
    work=f"The same on 20,000 messages of 5,000 channels under the wildcard rooms.*.{MISSING}",
    course=wide,
).benchmark
SPARSE: Final = Shape(
    name="sparse",
    work=f"{SPARSE_EVENTS:,} such events on 5,000 messages of 100 channels under a wildcard, one "
    f"an answer, {SPARSE_RATE} answers a second. Only CPU counts: the rate is given, and shows who "
    f"keeps up.{MISSING}",
    course=sparse,
    is_rate_given=True,
).benchmark
WIDE_AOF: Final = Shape(
    name="wide-aof",
    work="As wide, into a Valkey with the lines of deploy/redis.conf about persistence: appendonly "
    'yes, appendfsync everysec, save "". Its other lines are left out.',
    course=wide,
    contenders=(WORKER, DAYS_WORK),
    configuration=tuple(EVERYSEC.items()),
).benchmark
