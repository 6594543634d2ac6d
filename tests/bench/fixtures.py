"""Fixtures of the tests that work on a bench: an emulated PubNub, a real Valkey, a world."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from tests.bench.bench import Bench
from tests.redis_server import MortalServer, RedisServer
from tests.source.scripted import SUBSCRIBE_KEY
from tests.worlds import World
from worker.emulator import Emulator
from worker.source.client import Client, Keyset
from worker.store.connection import connect


@pytest.fixture
def idle_seconds() -> float:
    """Return the seconds of an idle poll: longer than any test lasts."""
    return 280.0


@pytest.fixture
async def emulator(idle_seconds: float) -> AsyncIterator[Emulator]:
    """Yield a PubNub for this test."""
    async with Emulator(seed=5, idle_seconds=idle_seconds) as emulator:
        yield emulator


@pytest.fixture
async def bench(real_redis: Redis, emulator: Emulator) -> AsyncIterator[Bench]:
    """Yield the parts of a worker."""
    async with Client(Keyset(SUBSCRIBE_KEY, "tally", origin=emulator.origin, tls=False)) as client:
        yield Bench(real_redis, emulator, client)


@pytest.fixture(autouse=True)
def quick_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make waits a hundred times shorter, also those of commands."""
    monkeypatch.setattr("worker.source.backoff.FIRST_SECONDS", 0.005)
    monkeypatch.setattr("worker.source.reachability.PROBE_SECONDS", 0.02)
    monkeypatch.setattr("worker.store.redis_retry.FIRST_WAIT_SECONDS", 0.01)


@pytest.fixture
def world(emulator: Emulator, real_redis: Redis, valkey: RedisServer, tmp_path: Path) -> World:
    """Return a world: a PubNub, an empty Redis, and settings. Marks stay."""
    world = World(emulator, real_redis, valkey.url, tmp_path)
    world.settings["TALLY_SETTLE_SECONDS"] = "600"
    return world


@pytest.fixture
async def mortal(emulator: Emulator, tmp_path: Path) -> AsyncIterator[tuple[World, MortalServer]]:
    """Yield a world on a Redis of its own, which may be killed and put back."""
    server = MortalServer(tmp_path / "redis")
    try:
        async with connect(server.url) as redis:
            yield World(emulator, redis, server.url, tmp_path), server
    finally:
        server.destroy()
