"""A contender's race: a process that counts what PubNub answers, on a Valkey of its own."""

import asyncio
import json
import sys
from asyncio.subprocess import PIPE
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from shutil import which
from typing import Final

from reaction_tally.keys import Keys
from tests.benchmarks.answering import ANSWER, FIRST
from tests.benchmarks.contenders.order import Order, Report
from tests.benchmarks.harness import expect
from tests.benchmarks.load import Counts, answers, broken_counts, found, truth
from tests.benchmarks.loopback import Loopback
from tests.redis_server import RedisServer
from worker.domain.action import Observed
from worker.store.connection import RedisClient, connect
from worker.store.tables import Tables

LONGEST_SECONDS: Final = 100
OLD_MESSAGE: Final = str(FIRST - 10**9)
NODE: Final = Path(__file__).parent / "contenders" / "node"
EVERYSEC: Final = {"appendonly": "yes", "appendfsync": "everysec", "save": ""}
"""The three lines of ``deploy/redis.conf`` about persistence, and no other line of it."""


def additions(events: Sequence[Observed]) -> Counts:
    """Return the counts where removals and repetitions look like additions."""
    identities = (event.identity for event in events)
    return Counter((it.channel, it.message_timetoken, it.type, it.value) for it in identities)


def nothing(_: Sequence[Observed]) -> Counts:
    """Return the counts of who counts nothing."""
    return Counter()


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """Who counts, and what must come out of it."""

    key: str
    name: str
    lacks: str = ""
    """What it leaves out or gets wrong."""
    result: Callable[[Sequence[Observed]], Counts] = truth
    share: float = 1
    """The part of the events it gets, if it is slow."""

    @property
    def command(self) -> tuple[str, ...]:
        """The command line of its process."""
        if self.key == "node":
            return "node", str(NODE / "days_work.js")
        return sys.executable, "-m", f"tests.benchmarks.contenders.{self.key}"

    @property
    def is_here(self) -> bool:
        """Whether this machine has what it needs."""
        return self.key != "node" or bool(which("node") and (NODE / "node_modules").is_dir())


WORKER: Final = Contender(key="worker", name="ours")
DAYS_WORK: Final = Contender(
    key="days_work",
    name="day's work",
    lacks="exact only while events come in order; "
    "no tombstones, journal, index, quarantine, gaps, repair",
)
"""That ours is held against."""
DAYS_WORKS: Final = (
    DAYS_WORK,
    Contender(key="days_work_tuned", name="day's work, tuned", lacks="lacks the same"),
    Contender(
        key="days_work_blocking",
        name="day's work that blocks",
        lacks="lacks the same; follows one subscription only",
    ),
    Contender(key="node", name="day's work in Node", lacks="lacks the same"),
)
CONTENDERS: Final = (
    WORKER,
    *DAYS_WORKS,
    Contender(
        key="a_call_an_event",
        name="a call an event",
        lacks="lacks the same; saves the cursor in a step of its own",
    ),
    Contender(
        key="batching_listener",
        name="batching listener",
        lacks="wrong: counts removals and repetitions up; no cursor",
        result=additions,
    ),
    Contender(
        key="listener",
        name="documented listener",
        lacks="wrong in the same way",
        result=additions,
        share=0.2,
    ),
    Contender(key="floor", name="floor: our client", lacks="counts nothing", result=nothing),
)
HERE: Final = tuple(contender for contender in CONTENDERS if contender.is_here)


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """Events, as PubNub sends them."""

    events: Sequence[Observed]
    names: Sequence[str]
    """What is subscribed to."""
    in_an_answer: int = ANSWER
    answers_a_second: float = 0
    """Without a limit where it is 0."""

    @property
    def channels(self) -> list[str]:
        """The channels of the events."""
        return sorted({event.identity.channel for event in self.events})

    @property
    def last(self) -> str:
        """The cursor after the last answer."""
        size = self.in_an_answer
        return str(FIRST + -(-len(self.events) // size) * size)

    def first(self, share: float) -> "Course":
        """Return a part of it, in whole answers."""
        size = self.in_an_answer
        count = max(1, round(len(self.events) * share / size)) * size
        return Course(
            events=self.events[:count],
            names=self.names,
            in_an_answer=size,
            answers_a_second=self.answers_a_second,
        )


@dataclass(frozen=True, slots=True)
class Result:
    """Events a second; the processor's microseconds for an event."""

    rate: float
    cpu: float
    redis: float

    def values(self, key: str) -> dict[str, float]:
        """Return the figures of a contender."""
        return {f"{key}_rate": self.rate, f"{key}_cpu": self.cpu, f"{key}_redis": self.redis}


async def race(contender: Contender, course: Course, **configuration: str) -> Result:
    """Let one contender count, and compare its counts with the truth.

    Raises:
        WrongResultError: they are not what must come out of it.
    """
    course = course.first(contender.share)
    events = course.events
    with valkey(**configuration) as url:
        async with connect(url) as redis:
            with replay(course) as origin:
                await know(redis, course)
                before = await processor(redis)
                report = await run(contender, order(course, origin, url))
                spent = await processor(redis) - before
            await check(contender, events, url)
    count = len(events)
    return Result(count / report.seconds, 1e6 * report.cpu / count, 1e6 * spent / count)


async def check(contender: Contender, events: Sequence[Observed], url: str) -> None:
    """Compare what a contender counted with what it had to."""
    expect(contender.result(events), await found(url, events), contender.name)
    if contender is WORKER:
        async with connect(url) as redis:
            expect(0, await broken_counts(redis, events), contender.name)


@contextmanager
def valkey(**configuration: str) -> Iterator[str]:
    """Yield the address of a server of its own."""
    server = RedisServer(None, **configuration)
    try:
        yield server.url
    finally:
        server.stop()


@contextmanager
def replay(course: Course) -> Iterator[str]:
    """Yield the origin of a PubNub that sends the course."""
    rate = str(course.answers_a_second).encode()
    bodies = answers(course.events, course.in_an_answer)
    with Loopback("replay", [rate, *bodies]) as pubnub:
        yield pubnub.origin


def order(course: Course, origin: str, url: str) -> Order:
    """Return what a contender is told."""
    return Order(
        origin=origin,
        redis=url,
        names=course.names,
        first=str(FIRST),
        last=course.last,
        events=len(course.events),
    )


async def know(redis: RedisClient, course: Course) -> None:
    """Leave them as a worker does that has followed them: a new channel may have a gap."""
    keys = Keys()
    await Tables(redis, keys).channels.add(course.channels)
    pipe = redis.pipeline(transaction=False)
    for channel in course.channels:
        pipe.zadd(keys.messages(channel), {OLD_MESSAGE: 0})
    await pipe.execute()


async def processor(redis: RedisClient) -> float:
    """Return the seconds of the processor that Redis has used."""
    spent = await redis.info("cpu")
    return float(spent["used_cpu_user"] + spent["used_cpu_sys"])


async def run(contender: Contender, order: Order) -> Report:
    """Start a contender, and return its report."""
    child = await asyncio.create_subprocess_exec(*contender.command, stdin=PIPE, stdout=PIPE)
    try:
        async with asyncio.timeout(LONGEST_SECONDS):
            report, _ = await child.communicate(json.dumps(asdict(order)).encode())
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
    return Report(**json.loads(report))
