"""The contenders for latency and memory as processes, and a watcher of Redis."""

import asyncio
import json
import os
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final, Self, cast
from urllib.parse import urlsplit

import hiredis

from reaction_tally.journal import read_entry
from reaction_tally.keys import Keys
from tests.benchmarks.loopback import Loopback
from tests.benchmarks.probes import stamp
from tests.drill.rooms import leave_off
from worker.domain.position import Cursor
from worker.store.connection import connect

KEYS: Final = Keys()
WORKER: Final = """
import sys
from tests.benchmarks.probes import peak
from worker.cli.main import main
sys.argv = ["tally", "run"]
try:
    main()
finally:
    print(peak())
"""
APPLY_WAIT_SECONDS: Final = 60


@dataclass(frozen=True, slots=True)
class Result:
    """The age of each event in milliseconds when it arrived or showed; the peak of memory in MB."""

    ages: list[float]
    megabytes: float


async def bare(
    pubnub: Loopback,
    subscriptions: Sequence[Sequence[str]],
    rate: float,
    events: int,
    *,
    own: bool = False,
) -> Result:
    """Publish the events to poll loops, through the SDK or our ``own`` client."""
    options = {
        "origin": pubnub.origin,
        "subscriptions": subscriptions,
        "events": events,
        "own": own,
    }
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.benchmarks.bare"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(APPLY_WAIT_SECONDS):
            reporting = asyncio.create_task(child.communicate(json.dumps(options).encode()))
            await pubnub.wait_for(len(subscriptions))
            await pubnub.publish(rate, events)
            report = json.loads((await reporting)[0])
    finally:
        if child.returncode is None:
            child.kill()
    return Result([age / 10_000 for age in report["ages"]], report["peak"] / 1000)


async def ours(
    pubnub: Loopback, url: str, subscriptions: Sequence[Sequence[str]], rate: float, events: int
) -> Result:
    """Publish the events to a worker; an event shows as an entry in its channel's journal."""
    channels = sorted(channel for names in subscriptions for channel in names)
    async with working(pubnub, url, channels, len(subscriptions[0])) as child:
        async with asyncio.timeout(APPLY_WAIT_SECONDS):
            await pubnub.wait_for(len(subscriptions))
        with Watcher(url) as watcher:
            await pubnub.publish(rate, events)
            ages = await watcher.ages(channels, events)
        child.send_signal(signal.SIGTERM)
        async with asyncio.timeout(APPLY_WAIT_SECONDS):
            report, _ = await child.communicate()
    return Result(ages, int(report) / 1000)


@asynccontextmanager
async def working(
    pubnub: Loopback, url: str, channels: Sequence[str], channels_each: int
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Start a worker that goes on from where another has left it, so that it owes nothing."""
    async with connect(url) as redis:
        await leave_off(redis, channels, channels_each, Cursor(str(stamp()), 1))
    settings = {
        "PUBNUB_SUBSCRIBE_KEY": "demo",
        "PUBNUB_ORIGIN": pubnub.origin,
        "PUBNUB_TLS": "false",
        "REDIS_URL": url,
        "TALLY_CHANNELS": ",".join(channels),
        "TALLY_CHANNELS_PER_SUBSCRIPTION": str(channels_each),
        "TALLY_LOG_LEVEL": "error",
        "TALLY_HTTP": "127.0.0.1:0",
        "PYTHONPATH": os.getcwd(),  # noqa: PTH109 - for a child
    }
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", WORKER),
        env={**os.environ, **settings},
        cwd=tempfile.gettempdir(),
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        yield child
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()


@dataclass
class Watcher:
    """Notes when journals grow, in a thread of its own, with little work for Redis and itself.

    Keyspace notifications tell that an entry was written; its content is read afterwards.
    """

    url: str
    _received: list[tuple[int, bytes]] = field(default_factory=list)

    def __enter__(self) -> Self:
        address = urlsplit(self.url)
        self._socket = socket.create_connection((address.hostname, address.port))
        self._socket.sendall(b"CONFIG SET notify-keyspace-events Kt\r\n")
        assert self._socket.recv(100) == b"+OK\r\n"
        self._socket.sendall(b"PSUBSCRIBE __keyspace@*__:*:journal\r\n")
        assert self._socket.recv(1000)
        self._listening = threading.Thread(target=self._listen)
        self._listening.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._listening.join()
        self._socket.close()

    def _listen(self) -> None:
        while part := self._socket.recv(1 << 20):
            self._received.append((stamp(), part))

    async def ages(self, channels: Sequence[str], events: int) -> list[float]:
        """Return how old each event was when it showed, in milliseconds, once so many have."""
        deadline = time.monotonic() + APPLY_WAIT_SECONDS
        async with connect(self.url) as redis:
            while True:
                entries = await journals(redis, channels)
                shown = self._shown(channels)  # this thread may have come later to it than Redis
                if sum(
                    map(len, (at for written in entries.values() for at in written))
                ) >= events and all(
                    len(shown[channel]) >= len(written) for channel, written in entries.items()
                ):
                    break
                assert time.monotonic() < deadline, "not every event came through"
                await asyncio.sleep(0.2)
        return [
            (now - int(at)) / 10_000
            for channel in channels
            for now, written in zip(shown[channel], entries[channel], strict=True)
            for at in written
        ]

    def _shown(self, channels: Sequence[str]) -> dict[str, list[int]]:
        """Return when each entry of each channel was heard of, until now."""
        shown: dict[str, list[int]] = {channel: [] for channel in channels}
        reader = hiredis.Reader(encoding="utf-8")
        for now, part in self._received:
            reader.feed(part)
            while notice := reader.gets():
                _, _, key, what = cast("list[str]", notice)
                if what == "xadd":
                    shown[key.partition("{")[2].rpartition("}")[0]].append(now)
        return shown


async def journals(redis: Any, channels: Sequence[str]) -> dict[str, list[list[str]]]:
    """Return the action timetokens of each entry of each channel."""
    pipe = redis.pipeline(transaction=False)
    for channel in channels:
        pipe.xrange(KEYS.journal(channel))
    return {
        channel: [
            [change.action_timetoken for change in read_entry(*entry).changes] for entry in entries
        ]
        for channel, entries in zip(channels, await pipe.execute(), strict=True)
    }
