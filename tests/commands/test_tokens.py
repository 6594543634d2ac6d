"""A token that ends while a worker runs, and a new one in its file."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import pytest

from tests.redis_server import RedisServer
from tests.waiting import wait_until
from tests.worlds import ROOM, World, open_world
from worker.emulator import READ, Grant

SETTINGS: Final = {"TALLY_SETTLE_SECONDS": "0.2", "TALLY_LOG_FORMAT": "json"}
ADVICE: Final = "Token is expired. Put a new token into the file of PUBNUB_AUTH_TOKEN_FILE."


@pytest.fixture
async def world(
    valkey: RedisServer,
    real_redis: object,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[World]:
    """A world with Access Manager, in which refused names are tried again soon."""
    monkeypatch.setattr("worker.source.refusals.REFUSED_SECONDS", 0.2)
    monkeypatch.setattr("worker.reconciliation.marks.STILL_REFUSED_SECONDS", 0.3)
    async with open_world(valkey.url, tmp_path) as world:
        world.state.access.switch_on("pub-c-test", "sec-c-test")
        world.settings["PUBNUB_AUTH_TOKEN_FILE"] = str(tmp_path / "token")
        yield world


def write_token(world: World, minutes: int) -> None:
    """Write a token that lives so long into the worker's file."""
    grant = Grant(minutes=minutes, channels={ROOM: READ})
    token = world.state.access.grant(grant)
    (world.folder / "token").write_text(token, encoding="utf-8")


def entries(log: str, event: str) -> list[dict[str, Any]]:
    """Return the entries of this name."""
    lines = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    return [entry for entry in lines if entry["event"] == event]


async def test_a_token_that_ends_is_replaced_without_a_loss(world: World) -> None:
    """The refusal says what to do. What happens meanwhile is counted with the new token."""
    write_token(world, minutes=1)
    async with world.run_worker(**SETTINGS) as worker:
        action = world.react("👍", "ana")
        world.react("👍", "ben")
        await world.wait_for_counts({"👍": 2})

        world.state.advance(60)
        world.react("🎉", "ana")
        await wait_until(lambda: entries(worker.err, "pubnub_refused"), what=lambda: worker.err)
        world.react("🎉", "ben")
        world.take_back(action)
        write_token(world, minutes=60)
        await wait_until(lambda: entries(worker.err, "pubnub_readmitted"), what=lambda: worker.err)
        world.react("🔥", "ana")

        await world.settles()
        await wait_until(world.owes_nothing, what=lambda: worker.err)
        assert await world.counts() == {"👍": 1, "🎉": 2, "🔥": 1}

    (refused, *_) = entries(worker.err, "pubnub_refused")
    assert refused["names"] == [ROOM]
    assert ADVICE in refused["reason"]
    assert entries(worker.err, "token_renewed")


async def test_a_token_that_is_replaced_in_time_costs_nothing(world: World) -> None:
    """The new one is in the file when the old one ends: no name is refused, nothing is owed."""
    write_token(world, minutes=1)
    async with world.run_worker(**SETTINGS) as worker:
        world.react("👍", "ana")
        await world.wait_for_counts({"👍": 1})
        await wait_until(world.owes_nothing, what=lambda: worker.err)

        write_token(world, minutes=60)
        world.state.advance(60)
        for user in ("ben", "cleo", "dan"):
            world.react("👍", user)
        await world.wait_for_counts({"👍": 4})
        await wait_until(lambda: entries(worker.err, "token_renewed"), what=lambda: worker.err)

    assert not entries(worker.err, "pubnub_refused")
    assert not [entry for entry in entries(worker.err, "gap") if entry["cause"] == "forbidden"]


async def test_a_backfill_with_a_token_that_ended_says_what_to_do(world: World) -> None:
    """It ends with the code of PubNub, and goes on with a new token."""
    world.add_past(3)
    write_token(world, minutes=1)
    world.state.advance(60)

    refused = await world.run_command("backfill", **SETTINGS)
    write_token(world, minutes=60)
    done = await world.run_command("backfill", **SETTINGS)

    assert refused.code == 3
    assert ADVICE in refused.out + refused.err
    assert done.code == 0
    assert await world.is_exact()
