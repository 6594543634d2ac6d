"""A stage for the whole service: a PubNub to listen to, a Redis to write to, and commands as real processes."""

import asyncio
import inspect
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from http.client import HTTPConnection
from pathlib import Path
from random import Random
from typing import Any, Final, cast
from urllib.parse import unquote

from redis.asyncio import Redis

from worker.emulator import Emulator, State, Truth
from worker.live.answer_queue import QUEUED_ANSWERS
from worker.store.keys import Keys

ROOM: Final = "room"
MESSAGE: Final = "17600000001728660"
KEY: Final = "sub-c-test"
OURS: Final = ("PUBNUB_", "TALLY_", "REDIS_")
KEYS: Final = Keys()

APPLY_WAIT_SECONDS: Final = 60.0
"""How long anything is waited for: far longer than it takes, also where the machine has much else to do."""

Condition = Callable[[], object | Awaitable[object]]


async def wait_until(
    condition: Condition,
    seconds: float = APPLY_WAIT_SECONDS,
    *,
    what: Callable[[], object] | None = None,
) -> None:
    """Return as soon as the condition holds; fail, saying ``what``, if it does not in time."""
    deadline = asyncio.get_running_loop().time() + seconds
    while True:
        held = condition()
        if await held if inspect.isawaitable(held) else held:
            return
        if asyncio.get_running_loop().time() > deadline:
            raise AssertionError(
                f"it did not come about in {seconds:g} s; {what() if what else ''}"
            )
        await asyncio.sleep(0.01)


class Child:
    """A ``tally`` command: a real process, its output in files, where no full pipe can stop it."""

    def __init__(
        self, folder: Path, number: int, arguments: Iterable[str], environment: dict[str, str]
    ) -> None:
        self._out, self._err = folder / f"{number}.out", folder / f"{number}.err"
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "worker", *arguments],
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
            )

    @property
    def out(self) -> str:
        """What it has written to standard output until now."""
        return self._out.read_text(errors="backslashreplace")

    @property
    def err(self) -> str:
        """What it has written to standard error until now."""
        return self._err.read_text(errors="backslashreplace")

    @property
    def is_alive(self) -> bool:
        """Whether it still runs."""
        return self.process.poll() is None

    def entries(self, event: str) -> list[dict[str, Any]]:
        """Return its log entries of that name."""
        lines = (
            line
            for line in self.err.splitlines(keepends=True)
            if line.startswith("{") and line.endswith("\n")
        )
        return [entry for entry in map(json.loads, lines) if entry["event"] == event]

    def ask(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    def hang_up(self) -> None:
        """Ask it to read its list again."""
        self.ask(signal.SIGHUP)

    def _get(self, path: str) -> tuple[int, str]:
        (listens,) = self.entries("http_listens")
        connection = HTTPConnection(listens["host"], listens["port"], timeout=APPLY_WAIT_SECONDS)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()

    async def asked(self, path: str) -> tuple[int, Any]:
        """Ask a worker, and go on with all else meanwhile; return the status and the JSON."""
        status, body = await asyncio.to_thread(self._get, path)
        return status, json.loads(body)

    async def metric(self, name: str) -> float:
        """Return the value of a worker's sample, named with its labels as /metrics writes it."""
        _, text = await asyncio.to_thread(self._get, "/metrics")
        return next(
            float(line.rpartition(" ")[2])
            for line in text.splitlines()
            if line.startswith(f"{name} ")
        )

    async def failing(self) -> set[str]:
        """Return the names of a worker's checks that fail."""
        status, told = await self.asked("/readyz")
        wrong = {name for name, check in told["checks"].items() if not check["ok"]}
        assert (status, told["ok"]) == ((503, False) if wrong else (200, True))
        return wrong

    async def reads(self, wrong: set[str]) -> None:
        """Wait until these checks of a worker fail, and no others."""

        async def are_these() -> bool:
            return await self.failing() == wrong

        await wait_until(are_these, what=lambda: self.err[-3000:])

    async def ended(self, seconds: float = APPLY_WAIT_SECONDS) -> int:
        """Wait until it has ended; return its exit code."""
        await wait_until(lambda: not self.is_alive, seconds, what=lambda: self.err[-3000:])
        return self.process.wait()

    async def stopped(self) -> int:
        """Ask it to stop, as a supervisor does; return its exit code."""
        self.ask(signal.SIGTERM)
        return await self.ended()

    async def killed(self) -> None:
        """End it without a chance to do anything more."""
        self.process.kill()
        await self.ended()


class Stage:
    """One emulator, one Redis, one folder, and the commands started on them."""

    def __init__(self, emulator: Emulator, redis: Redis, url: str, folder: Path) -> None:
        self.emulator = emulator
        self.state: State = emulator.state
        # redis-py types its commands for both its clients at once; here they are always awaited.
        self.redis = cast("Any", redis)
        self.folder = folder
        self.settings: dict[str, str] = {
            "PUBNUB_SUBSCRIBE_KEY": KEY,
            "PUBNUB_ORIGIN": emulator.origin,
            "PUBNUB_TLS": "false",
            "REDIS_URL": url,
            "TALLY_CHANNELS": ROOM,
            "TALLY_HISTORY_RATE": "1000",
            "TALLY_HTTP": "127.0.0.1:0",
        }
        self.children: list[Child] = []

    def start(self, *arguments: str, **settings: str | None) -> Child:
        """Start a command; a setting of None is left unset."""
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith(OURS)
        }
        wanted: dict[str, str | None] = {**self.settings, **settings}
        environment |= {name: value for name, value in wanted.items() if value is not None}
        self.children.append(Child(self.folder, len(self.children), arguments, environment))
        return self.children[-1]

    async def do(self, *arguments: str, **settings: str | None) -> Child:
        """Start a command, and return when it has ended."""
        child = self.start(*arguments, **settings)
        await child.ended()
        return child

    async def follow(self, *, polls: int = 1, **settings: str | None) -> Child:
        """Start a worker, and return when it listens."""
        already = self.emulator.requests["subscribe"]
        child = self.start("run", **settings)
        await wait_until(
            lambda: (
                not child.is_alive
                or (
                    self.emulator.waiting >= polls
                    and self.emulator.requests["subscribe"] >= already + polls
                )
            ),
            what=lambda: child.err[-3000:],
        )
        assert child.is_alive, child.err
        return child

    async def tallies(self) -> Truth:
        """Return channel → message → type → value → count, read as the contract tells any reader to."""
        found: Truth = {}
        async for key in self.redis.scan_iter("tally:{*}:counts:*", count=1000):
            channel, _, message = key.removeprefix("tally:{").rpartition("}:counts:")
            for field, count in (await self.redis.hgetall(key)).items():
                type, _, value = field.partition(":")
                types = found.setdefault(unquote(channel), {}).setdefault(message, {})
                types.setdefault(unquote(type), {})[value] = int(count)
        return found

    async def is_true(self) -> bool:
        """Whether the tallies are PubNub's truth now."""
        return await self.tallies() == self.emulator.truth()

    async def settles(self, seconds: float = APPLY_WAIT_SECONDS) -> None:
        """Wait until the tallies are PubNub's truth, and nothing is left to replay."""

        async def is_settled() -> bool:
            return await self.is_true() and not await self.redis.keys("tally:*:progress")

        try:
            await wait_until(is_settled, seconds)
        except AssertionError:
            places = {
                key: await self.redis.hgetall(key)
                for key in await self.redis.keys("tally:*:progress")
            }
            said = "\n".join(child.err[-3000:] for child in self.children)
            assert (await self.tallies(), places) == (self.emulator.truth(), {}), said
            raise

    async def owed(self, channel: str = ROOM) -> set[str]:
        """Return why a channel needs a repair."""
        return set(await self.redis.hgetall(KEYS.owed(channel)))

    async def cursors(self) -> dict[str, dict[str, str]]:
        """Return what is saved of each subscription."""
        return {
            key: await self.redis.hgetall(key) for key in await self.redis.keys("tally:cursor:*")
        }

    async def quarantine(self) -> list[dict[str, str]]:
        """Return what was quarantined, oldest first."""
        return [entry for _, entry in await self.redis.xrange("tally:quarantine")]

    def react(self, value: str = "👍", uuid: str = "ana", channel: str = ROOM) -> None:
        """Let somebody react."""
        self.state.add(channel, MESSAGE, "reaction", value, uuid)

    @asynccontextmanager
    async def hanging_redis(self) -> AsyncIterator[None]:
        """Let Redis answer no write while this is open."""
        await self.redis.client_pause(600_000, all=False)
        try:
            yield
        finally:
            await self.redis.client_unpause()

    async def fills_the_queue(self) -> None:
        """Give a worker that cannot apply more answers than it holds: one in hand, some queued, one without room.

        Long ones: after a short one it would wait a while for that to be applied.
        """
        for number in range(QUEUED_ANSWERS + 2):
            polls = self.emulator.requests["subscribe"] + (number <= QUEUED_ANSWERS)
            for user in range(60):
                self.react(uuid=f"user-{number}-{user}")
            await wait_until(lambda polls=polls: self.emulator.requests["subscribe"] >= polls)  # type: ignore[misc]

    def end(self) -> None:
        """End every command that still runs."""
        for child in self.children:
            child.process.kill()
            child.process.wait()


class Crowd:
    """People who add and remove reactions, as a seed has them."""

    def __init__(self, state: State, seed: int, channels: tuple[str, ...] = (ROOM,)) -> None:
        self._state = state
        self._random = Random(seed)
        self._channels = channels
        self._own: dict[tuple[str, str, str, str], int] = {}
        self.acts = 0

    def act(self) -> None:
        """Add a reaction, or remove it where it is there already."""
        message = str(int(MESSAGE) + self._random.randrange(5))
        value, uuid = self._random.choice("👍🎉❤"), f"user-{self._random.randrange(8)}"
        which = (self._random.choice(self._channels), message, value, uuid)
        self.acts += 1
        if (own := self._own.pop(which, None)) is not None:
            self._state.remove(which[0], message, own, uuid)
        else:
            change = self._state.add(which[0], message, "reaction", value, uuid)
            self._own[which] = change.actions[-1].timetoken

    @asynccontextmanager
    async def acting(self, emulator: Emulator, per_second: float = 50) -> AsyncIterator["Crowd"]:
        """Act at a steady rate for as long as this is open.

        While nobody polls the crowd falls silent after 40 acts: PubNub's cache holds a hundred, and what it loses is
        not the subject of whoever uses this, however slowly a worker starts.
        """

        async def act_on() -> None:
            polls, left = 0, 40
            while True:
                if emulator.requests["subscribe"] != polls:
                    polls, left = emulator.requests["subscribe"], 40
                if left:
                    left -= 1
                    self.act()
                await asyncio.sleep(1 / per_second)

        acting = asyncio.create_task(act_on())
        try:
            yield self
        finally:
            acting.cancel()
            await asyncio.wait([acting])

    async def has_acted(self, times: int) -> None:
        """Return when it has acted so many times more."""
        goal = self.acts + times
        await wait_until(lambda: self.acts >= goal)
