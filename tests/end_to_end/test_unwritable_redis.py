"""A worker is not ready while Redis takes no writes, says why, and is ready again by itself."""

import time
from collections.abc import Awaitable, Callable
from typing import Any, Final, cast

import pytest

from tests.redis_server import free_port
from tests.waiting import wait_until
from tests.worlds import World
from worker.errors import ExitCode

PROMISE_SECONDS: Final = 15
USER: Final = "tally"

pytestmark = pytest.mark.processes


def set_to(name: str, value: str) -> Callable[[Any], Awaitable[object]]:
    """Return what changes a setting of Redis."""

    async def change(redis: Any) -> None:
        await redis.config_set(name, value)

    return change


def sent(*words: str | int) -> Callable[[Any], Awaitable[object]]:
    """Return what sends Redis a command."""

    async def send(redis: Any) -> None:
        await redis.execute_command(*words)

    return send


@pytest.mark.parametrize(
    ("breaks", "mends", "reason"),
    [
        (set_to("maxmemory", "1"), set_to("maxmemory", "0"), "it is full"),
        (
            set_to("min-replicas-to-write", "1"),
            set_to("min-replicas-to-write", "0"),
            "it has too few replicas",
        ),
        (
            sent("REPLICAOF", "127.0.0.1", free_port()),
            sent("REPLICAOF", "NO", "ONE"),
            "it is a replica",
        ),
        (
            sent("ACL", "SETUSER", USER, "-time"),
            sent("ACL", "SETUSER", USER, "+time"),
            "The worker uses TIME, which Redis does not permit to user 'tally'",
        ),
        (
            sent("ACL", "SETUSER", USER, "-hset"),
            sent("ACL", "SETUSER", USER, "+hset"),
            "The worker uses HSET, which Redis does not permit to user 'tally'",
        ),
    ],
    ids=["OOM", "NOREPLICAS", "READONLY", "NOPERM TIME", "NOPERM"],
)
async def test_readyz_says_why_redis_takes_no_writes(
    world: World,
    breaks: Callable[[Any], Awaitable[object]],
    mends: Callable[[Any], Awaitable[object]],
    reason: str,
) -> None:
    """Though Redis answers what is read."""
    redis = cast("Any", world.redis)
    await redis.execute_command("ACL", "SETUSER", USER, "reset", "on", ">word", "~*", "&*", "+@all")
    url = world.settings["REDIS_URL"].replace("redis://", f"redis://{USER}:word@")
    worker = await world.follow(REDIS_URL=url)
    await wait_until(worker.is_ready, what=worker.tail)
    try:
        await breaks(redis)
        began = time.monotonic()
        await worker.fails({"redis_writes"})
        seconds = time.monotonic() - began
        _, page = await worker.get_json("/readyz")
        _, status = await worker.get_json("/status")
        answers = await worker.metric('tally_ready{check="redis"}')
        takes_writes = await worker.metric('tally_ready{check="redis_writes"}')
    finally:
        await mends(redis)
    assert seconds < PROMISE_SECONDS
    assert reason in page["checks"]["redis_writes"]["reason"]
    if "TIME" not in reason:
        assert status["redis"]["channels"] == 1
    assert (answers, takes_writes) == (1, 0)
    await wait_until(worker.is_ready, what=worker.tail)
    world.react("👍", "ana")
    await world.wait_for_counts({"👍": 1})
    assert await worker.stopped() == ExitCode.DONE
    await redis.execute_command("ACL", "DELUSER", USER)
