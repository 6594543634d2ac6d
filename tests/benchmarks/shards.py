"""Two workers, each with half of the channels, beside one: on one Redis, and on two."""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import lru_cache
from typing import Final

from tests.benchmarks.answering import ANSWER
from tests.benchmarks.harness import Benchmark, Figure, Ratio
from tests.benchmarks.load import history
from tests.benchmarks.race import WORKER, Course, check, know, order, race, replay, run, valkey
from worker.store.connection import connect

EVENTS: Final = 49_500
"""Events of a half."""
HALVES: Final = 2
LEAST_ANSWERS: Final = 2


@lru_cache(maxsize=2)
def half(number: int, size: float) -> Course:
    """Return the events of 2,500 channels under a wildcard of their own."""
    count = max(LEAST_ANSWERS, round(EVENTS * size / ANSWER)) * ANSWER
    name = f"rooms{number}.{{:04d}}"
    events = history(count, number, channels=2_500, messages=10_000, name=name)
    return Course(events=events, names=[f"rooms{number}.*"])


async def together(courses: Sequence[Course], servers: int) -> float:
    """Return the events a second of workers that run at once, all of them together."""
    with ExitStack() as stack:
        urls = [stack.enter_context(valkey()) for _ in range(servers)]
        origins = [stack.enter_context(replay(course)) for course in courses]
        runs = []
        for number, course in enumerate(courses):
            url = urls[number % servers]
            async with connect(url) as redis:
                await know(redis, course)
            runs.append(run(WORKER, order(course, origins[number], url)))
        reports = await asyncio.gather(*runs)
        for number, course in enumerate(courses):
            await check(WORKER, course.events, urls[number % servers])
    began = min(report.began for report in reports)
    ended = max(report.began + report.seconds for report in reports)
    return sum(len(course.events) for course in courses) / (ended - began)


async def one_round(size: float) -> Mapping[str, float]:
    """Let one worker count a half, then two workers both halves."""
    halves = [half(number, size) for number in range(HALVES)]
    alone = await race(WORKER, halves[0])
    return {
        "alone": alone.rate,
        "one_redis": await together(halves, servers=1),
        "two_redis": await together(halves, servers=2),
    }


BENCHMARK: Final = Benchmark(
    "shards",
    f"{EVENTS:,} events to each worker, as in wide, of 2,500 channels under a wildcard of its own. "
    "The rate is of both together, from the first poll to the last cursor. Each worker, each "
    "Valkey and each sending PubNub is a process: with fewer than five cores they wait for each "
    "other, and the ratios say little.",
    (
        Figure("alone", "one worker", "events/s"),
        Figure("one_redis", "two workers, one Redis", "events/s"),
        Figure("two_redis", "two workers, a Redis each", "events/s"),
        Ratio("one_redis", "alone", "two workers on one Redis / one worker"),
        Ratio("two_redis", "alone", "two workers on two Redis / one worker"),
    ),
    one_round,
)
