"""The demo from beginning to end: stage, crowd, quiet, verdict; and what an interruption does to it."""

import asyncio
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from random import Random
from typing import Final

import aiohttp

from worker import TallyReader
from worker.demo.cancellation import heed_cancellation
from worker.demo.comparison import Comparison, Judge, Tallies, settled
from worker.demo.crowd import CHANNELS, Crowd, places
from worker.demo.plan import SHOWN_DIFFERENCES, Plan, Result
from worker.demo.processes import Processes, staged
from worker.demo.screen import Frame, Screen, screen
from worker.errors import FatalError, RedisUnavailableError, first_of
from worker.store.connection import connect
from worker.store.keys import Keys, digest
from worker.store.tables import Tables

FOLLOW_SECONDS: Final = 30.0
ASK_SECONDS: Final = 0.05
TRUTH_SECONDS: Final = 10.0
FEW: Final = 20
FEW_PARTS: Final = 0.2
"""Reactions the crowd may do less than it was asked to without a word: a number, or a part of all, if that is more."""
ENDING_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


async def run_demo(plan: Plan, *, quiet: bool = False) -> Result:
    """Run the whole demo; ``quiet`` prints nothing. It leaves no process and no file, however it ends.

    Raises:
        FatalError: a part failed; the sentence has its last words.
        SystemExit: a signal asked to end; everything is down by then.
    """
    with ended_by_signals() as ending, tempfile.TemporaryDirectory(prefix="tally-demo-") as folder:
        with screen(quiet=quiet) as shown:
            async with staged(plan, Path(folder), CHANNELS, shown.say) as processes:
                try:
                    result = await _watched(processes, plan, shown)
                finally:
                    ending()
        _tell(result, shown)
    return result


@contextmanager
def ended_by_signals() -> Iterator[Callable[[], None]]:
    """Have the first signal cancel this task, and end with 128 + its number.

    Yields what to call when the end has begun by itself: it takes seconds at most, and a signal would only keep
    processes from being ended. For the same reason later signals do nothing.
    """
    task, loop = asyncio.current_task(), asyncio.get_running_loop()
    caught: list[int] = []
    ending = asyncio.Event()

    def end(number: int) -> None:
        if task and not ending.is_set():
            ending.set()
            caught.append(number)
            task.cancel()

    for number in ENDING_SIGNALS:
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # nohup means it
            loop.add_signal_handler(number, end, number)
    try:
        yield ending.set
    except asyncio.CancelledError:
        if caught:
            raise SystemExit(128 + caught[0]) from None
        raise


async def _watched(processes: Processes, plan: Plan, shown: Screen) -> Result:
    """Perform, unless a part ends before its time."""
    try:
        async with asyncio.TaskGroup() as group:
            watching = [group.create_task(child.watch()) for child in processes.children]
            result = await DemoRun(processes, plan, shown).run()
            for watch in watching:
                watch.cancel()
    except BaseExceptionGroup as errors:
        raise first_of(errors) from None
    return result


class DemoRun:
    """The crowd on a stage that is up, and the verdict."""

    def __init__(self, processes: Processes, plan: Plan, shown: Screen) -> None:
        self._stage = processes
        self._plan = plan
        self._shown = shown

    async def run(self) -> Result:
        """Wait for the worker, let the crowd react, wait until all is quiet, compare."""
        processes, plan = self._stage, self._plan
        around = places(time.time(), Random(plan.seed))  # noqa: S311 - repeatable, not secret
        async with (
            connect(processes.redis_url) as redis,
            TallyReader.from_url(processes.redis_url) as reader,
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=TRUTH_SECONDS)) as session,
        ):
            await self._followed(Tables.on(redis, Keys()))
            heed_cancellation()
            self._say_where_to_look(*around[0])
            tallies = Tallies(reader, redis, CHANNELS)
            async with Crowd(processes.origin, plan.rate, plan.seed, around) as crowd:
                return await self._performed(
                    crowd, tallies, Judge(processes.origin, session, tallies)
                )

    async def _performed(self, crowd: Crowd, tallies: Tallies, judge: Judge) -> Result:
        """Let the crowd react and all become quiet, while the spectator looks on; compare."""
        async with asyncio.TaskGroup() as group:
            drawing = group.create_task(self._draw(crowd, tallies))
            seconds = await crowd.react(self._plan.seconds)
            last = await settled(judge.compare)
            drawing.cancel()
        self._shown.show(Frame(last.found, crowd.done, seconds, seconds, is_over=True))
        return self._result(seconds, crowd, last)

    async def _followed(self, tables: Tables) -> None:
        """Wait until the worker has a cursor: from then on it misses nothing."""
        began = time.monotonic()
        while await tables.cursors.read(digest(CHANNELS)) is None:
            if time.monotonic() > began + FOLLOW_SECONDS:
                raise FatalError(
                    f"The worker does not follow its channels after {FOLLOW_SECONDS:g} s."
                )
            heed_cancellation()
            await asyncio.sleep(ASK_SECONDS)

    def _say_where_to_look(self, channel: str, message_timetoken: str) -> None:
        key = Keys().counts(channel, message_timetoken)
        self._shown.say("Look", f"redis-cli -u {self._stage.redis_url} --raw HGETALL '{key}'")

    async def _draw(self, crowd: Crowd, tallies: Tallies) -> None:
        began = time.monotonic()
        while True:
            await asyncio.sleep(self._shown.every_seconds)
            with suppress(RedisUnavailableError):  # the next look may be luckier
                counts = await tallies.read()
                self._shown.show(
                    Frame(counts, crowd.done, time.monotonic() - began, self._plan.seconds)
                )

    def _result(self, seconds: float, crowd: Crowd, last: Comparison) -> Result:
        deeds = {deed.value: count for deed, count in sorted(crowd.deeds.items())}
        truth = last.truth
        return Result(
            self._plan,
            seconds,
            truth.events,
            len(last.found),
            truth.actions,
            deeds,
            last.differences,
        )


def _tell(result: Result, shown: Screen) -> None:
    """Say what came of it."""
    deeds = ", ".join(f"{count:,} {deed}" for deed, count in result.deeds.items())
    shown.say("Crowd", f"{deeds or 'nothing'} in {result.seconds:.1f} s")
    asked, done = result.plan.rate * result.plan.seconds, sum(result.deeds.values())
    if done < asked - max(FEW, FEW_PARTS * asked):
        shown.say(
            "",
            f"  {asked:,.0f} were asked for: more than the SDK does in one process on this machine.",
        )
    shown.say(
        "Verdict",
        f"{result.events:,} events ({result.events_per_second:.0f}/s), {result.messages} messages, "
        f"{result.actions:,} actions, {result.differences} differences from the truth.",
    )
    for each in result.differing[:SHOWN_DIFFERENCES]:
        where = f"{each.channel} {each.message_timetoken} {each.type} {each.value}"
        shown.say("", f"  {where}: expected {each.expected}, found {each.found}")
