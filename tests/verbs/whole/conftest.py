"""Whole commands and whole workers, in this process: a PubNub and a Valkey to work on, and nothing to start first."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from redis.asyncio import Redis

from tests.end_to_end.processes import Stage, wait_until
from tests.redis_server import MortalServer, RedisServer
from tests.verbs.in_process import APPLY_WAIT_SECONDS, Commands, Running
from worker.emulator import Emulator
from worker.store.connection import connect


@pytest.fixture
def stage(emulator: Emulator, real_redis: Redis, valkey: RedisServer, tmp_path: Path) -> Stage:
    """Set a stage: a PubNub, an empty Redis, and settings; what is owed stays so, unless a test says otherwise."""
    stage = Stage(emulator, real_redis, valkey.url, tmp_path)
    stage.settings["TALLY_SETTLE_SECONDS"] = "600"
    return stage


@pytest.fixture
async def mortal(emulator: Emulator, tmp_path: Path) -> AsyncIterator[tuple[Stage, MortalServer]]:
    """Set a stage on a Redis of its own, which may be killed and put back."""
    server = MortalServer(tmp_path / "redis")
    try:
        async with connect(server.url) as redis:
            yield Stage(emulator, redis, server.url, tmp_path), server
    finally:
        server.destroy()


def commands(stage: Stage) -> Commands:
    """Return what runs commands on this stage."""
    return Commands(stage.folder, stage.settings)


@asynccontextmanager
async def following(
    stage: Stage, *, polls: int = 1, **settings: str | None
) -> AsyncIterator[Running]:
    """Run a worker on this stage, and go on when it listens with so many subscriptions; ask it to stop in the end."""
    already = stage.emulator.requests["subscribe"]
    async with commands(stage).worker(**settings) as worker:

        def listens() -> bool:
            return (
                stage.emulator.waiting >= polls
                and stage.emulator.requests["subscribe"] >= already + polls
            )

        await wait_until(
            lambda: worker.work.done() or listens(),
            APPLY_WAIT_SECONDS,
            what=lambda: worker.err[-3000:],
        )
        assert not worker.work.done(), worker.err
        yield worker
