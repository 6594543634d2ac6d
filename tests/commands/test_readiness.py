"""``/readyz`` says nothing of PubNub that PubNub has not shown."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.bench.in_process import Running
from tests.redis_server import RedisServer
from tests.waiting import wait_until
from tests.worlds import KEY, World, open_world
from worker.emulator import Emulator

SENTENCE = "subscriptions: 1 of 1 have no answer of PubNub's: PubNub, time: answered 503"


@pytest.fixture
async def world(valkey: RedisServer, real_redis: Any, tmp_path: Path) -> AsyncIterator[World]:
    """A world on an empty Redis."""
    async with open_world(valkey.url, tmp_path) as world:
        yield world


async def health(world: World, worker: Running) -> str:
    """Return what ``tally healthcheck`` prints of this worker."""
    (entry,) = worker.entries("http_listens")
    address = f"{entry['host']}:{entry['port']}"
    ended = await world.run_command("healthcheck", TALLY_HTTP=address)
    return ended.out


async def says(world: World, worker: Running, sentence: str) -> None:
    """Wait until ``tally healthcheck`` prints a sentence."""

    async def is_said() -> bool:
        return sentence in await health(world, worker)

    await wait_until(is_said, what=lambda: worker.err[-3000:])


async def test_a_restart_is_ready_only_after_an_answer(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An idle poll from a saved cursor proves nothing. An answer with the time does."""
    monkeypatch.setattr("worker.reconciliation.rounds.RETRY_SECONDS", 0.1)
    async with world.run_worker() as worker:
        await says(world, worker, "ok")

    world.state.set_outage("server_error", ["time", "actions"])
    async with world.run_worker() as worker:
        await says(world, worker, SENTENCE)
        world.state.set_outage(None)
        await says(world, worker, "ok")
        assert world.emulator.waiting == 1  # the poll still waits for its first answer


async def test_an_idle_worker_is_ready_soon_after_an_outage(world: World) -> None:
    """It began its poll just before PubNub went away, and nothing happens afterwards.

    Connections are refused for a while. Then its poll waits as before.
    """
    async with world.run_worker():
        await wait_until(world.cursors)
    _, port = world.emulator.origin.split(":")
    async with world.run_worker() as worker:
        await world.emulator.stop()
        await wait_until(lambda: worker.entries("pubnub_unreachable"))
        async with Emulator(port=int(port), subscribe_key=KEY) as again:
            await wait_until(lambda: worker.entries("pubnub_answers_again"))

            assert again.waiting == 1
            await says(world, worker, "ok")


async def test_readyz_says_why_pubnub_does_not_answer(world: World) -> None:
    """With the sentence of the log."""
    world.state.set_outage("server_error")
    async with world.commands().worker() as worker:
        await wait_until(lambda: worker.entries("pubnub_unreachable"))
        (entry, *_) = worker.entries("pubnub_unreachable")
        await says(world, worker, f"1 of 1 have no answer of PubNub's: {entry['reason']}")
