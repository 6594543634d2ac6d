"""The demo from start to end."""

import asyncio
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, Final

from reaction_tally.keys import Keys
from worker.demo.comparison import Comparison, compare, read_counts, settled
from worker.demo.credentials import Access, CredentialsOf, Guard
from worker.demo.crowd import CHANNELS, Crowd, places
from worker.demo.processes import Processes, started_processes
from worker.demo.screen import Screen
from worker.demo.user import IN_WORDS, Outcome
from worker.emulator import Emulator
from worker.errors import FatalError, first_of
from worker.store.connection import RedisClient, connect
from worker.store.cursors import digest
from worker.store.redis_errors import redis_errors

SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
FOLLOW_SECONDS: Final = 30.0
POLL_SECONDS: Final = 0.05
DRAW_SECONDS: Final = 0.25
SHOWN_DIFFERENCES: Final = 10
DIFFERENCE_FIELDS: Final = ("channel", "message_timetoken", "type", "value", "expected", "found")


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
    access: Access = Access.OPEN


@dataclass(frozen=True, slots=True)
class Stage:
    """What a demo runs with, once everything is started."""

    processes: Processes
    screen: Screen
    credentials: CredentialsOf


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

    def as_json(self) -> dict[str, Any]:
        """Return the JSON object that ``tally demo --json`` prints."""
        comparison = self.comparison
        return {
            "events": comparison.events,
            "messages": comparison.messages,
            "actions": comparison.actions,
            "differences": self.differences,
            "events_per_second": round(comparison.events / self.seconds, 1),
            "seconds": round(self.seconds, 1),
            "seed": self.plan.seed,
            "faults": dict(self.plan.faults),
            "access": str(self.plan.access),
            "crowd": {str(outcome): number for outcome, number in self.crowd.items()},
            "differing": [
                dict(zip(DIFFERENCE_FIELDS, difference, strict=True))
                for difference in comparison.differences[:SHOWN_DIFFERENCES]
            ],
        }


async def run_demo(plan: Plan, *, quiet: bool = False) -> Result:
    """Run the demo; ``quiet`` prints nothing.

    No process and no file is left behind.

    Raises:
        ConfigurationError: no Valkey is installed.
        FatalError: Valkey or the worker failed. The text says why.
        SystemExit: a signal ended the demo.
    """
    emulator = Emulator(seed=plan.seed, faults=plan.faults)
    guard = Guard(emulator, plan.access, CHANNELS)
    with (
        cancelled_by_signals() as ignore_signals,
        tempfile.TemporaryDirectory(prefix="tally-demo-") as folder,
    ):
        with Screen(quiet=quiet) as screen:
            credentials = guard.for_worker()
            start = started_processes(emulator, Path(folder), CHANNELS, credentials)
            async with start as processes:
                _print_start(plan, processes, screen)
                stage = Stage(processes, screen, guard.for_user)
                try:
                    result = await _run_watched(plan, stage)
                finally:
                    ignore_signals()
        _print_result(result, screen)
    return result


def _print_start(plan: Plan, processes: Processes, screen: Screen) -> None:
    rates = [f"{name} {rate:g}" for name, rate in plan.faults.items()]
    faults = ", ".join(rates) or "none"
    origin = processes.emulator.origin
    screen.say("Valkey", processes.redis_cli)
    screen.say("PubNub", f"an emulator at http://{origin}, seed {plan.seed}, faults: {faults}")
    if plan.access is not Access.OPEN:
        screen.say("Access", f"Access Manager is on; all requests have {plan.access}")
    screen.say("Worker", f"python -m worker run, process {processes.worker.pid}")


@contextmanager
def cancelled_by_signals() -> Iterator[Callable[[], None]]:
    """Cancel this task at the first signal, and exit with 128 + its number.

    Later signals are ignored, so that they do not interrupt the cleanup.
    Yields a function: from its call on, the first signal is ignored, too.
    """
    task = asyncio.current_task()
    loop = asyncio.get_running_loop()
    signals: list[int] = []
    is_ending = asyncio.Event()

    def end(number: int) -> None:
        if task and not is_ending.is_set():
            is_ending.set()
            signals.append(number)
            task.cancel()

    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup
            loop.add_signal_handler(number, end, number)
    try:
        yield is_ending.set
    except asyncio.CancelledError:
        if not signals:
            raise
        raise SystemExit(128 + signals[0]) from None


async def _run_watched(plan: Plan, stage: Stage) -> Result:
    worker = stage.processes.worker
    try:
        async with asyncio.TaskGroup() as group:
            watch = group.create_task(worker.watch())
            result = await _run(plan, stage)
            watch.cancel()
    except BaseExceptionGroup as errors:
        raise first_of(errors) from None
    return result


async def _run(plan: Plan, stage: Stage) -> Result:
    processes = stage.processes
    screen = stage.screen
    emulator = processes.emulator
    random = Random(plan.seed)  # noqa: S311 - repeatable, not secret
    messages = places(time.time(), random)

    async with connect(processes.redis_url) as redis:
        await _wait_for_worker(redis)
        key = Keys().counts(*messages[0])
        screen.say("Look", f"{processes.redis_cli} --raw HGETALL '{key}'")
        note = "until the demo ends: --seconds 15m is longer"
        screen.say("Board", f"{processes.worker.board()}  {note}")

        async with (
            Crowd(emulator.origin, plan.rate, plan.seed, messages, stage.credentials) as crowd,
            asyncio.TaskGroup() as group,
        ):
            drawing = _draw(screen, redis, crowd, plan.seconds)
            task = group.create_task(drawing)
            seconds = await crowd.react(plan.seconds)
            comparison = await settled(lambda: compare(emulator, redis, CHANNELS))
            task.cancel()

    screen.show(comparison.counts, f"{crowd.progress(seconds)}, over")
    outcomes = dict(sorted(crowd.outcomes.items()))
    return Result(plan, seconds, outcomes, comparison)


async def _wait_for_worker(redis: RedisClient) -> None:
    """Wait until the worker has a cursor. From then on it misses nothing."""
    cursor = Keys().cursor(digest(CHANNELS))
    deadline = time.monotonic() + FOLLOW_SECONDS
    while time.monotonic() < deadline:
        with redis_errors():
            is_following = await redis.exists(cursor)
        if is_following:
            return
        await asyncio.sleep(POLL_SECONDS)
    raise FatalError(f"The worker has no cursor after {FOLLOW_SECONDS:g} s.")


async def _draw(screen: Screen, redis: RedisClient, crowd: Crowd, planned: float) -> None:
    start = time.monotonic()
    while True:
        counts = await read_counts(redis, CHANNELS)
        elapsed = min(time.monotonic() - start, planned)
        left = planned - elapsed
        outlook = f"{left:.0f} s to go" if left else "waiting for the last events"
        screen.show(counts, f"{crowd.progress(elapsed)}, {outlook}")
        await asyncio.sleep(DRAW_SECONDS)


def _print_result(result: Result, screen: Screen) -> None:
    facts = result.as_json()
    crowd = [f"{number:,} {IN_WORDS[outcome]}" for outcome, number in result.crowd.items()]
    outcomes = ", ".join(crowd) or "nothing"
    screen.say("Crowd", f"{outcomes} in {result.seconds:.1f} s")
    screen.say(
        "Verdict",
        f"{facts['events']:,} events ({facts['events_per_second']:.0f}/s),"
        f" {facts['messages']} messages,"
        f" {facts['actions']:,} actions,"
        f" {result.differences} differences from the truth.",
    )
    for difference in result.comparison.differences[:SHOWN_DIFFERENCES]:
        screen.say("", "{} {} {} {}: expected {}, found {}".format(*difference))
