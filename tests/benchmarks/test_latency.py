"""The line a benchmark measures on: as long as it says, and it counts what it says."""

from typing import Any, cast

from redis.asyncio import Redis

from tests.benchmarks.latency import line, pings
from tests.redis_server import RedisServer


def test_a_round_trip_takes_its_time(valkey: RedisServer) -> None:
    """Never less, each way carrying half of it."""
    with line(valkey.port, 0.02) as far:
        assert pings(far.port, 5)[0] >= 0.0198


async def test_round_trips_are_counted(valkey: RedisServer) -> None:
    """A question that waits for an answer is one; many questions at once are one together."""
    with line(valkey.port, 0.02) as far:
        async with Redis.from_url(f"redis://127.0.0.1:{far.port}") as client:
            redis = cast("Any", client)
            await redis.ping()
            begun = far.round_trips()
            for _ in range(3):
                await redis.ping()
            one_by_one = far.round_trips() - begun
            pipe = redis.pipeline(transaction=False)
            for _ in range(500):
                pipe.ping()
            await pipe.execute()
            together = far.round_trips() - begun - one_by_one

    assert (one_by_one, together) == (3, 1)


def test_bytes_are_counted(valkey: RedisServer) -> None:
    """Those of a PING and of its answer."""
    with line(valkey.port, 0) as far:
        pings(far.port, 1)
        before = far.traffic()
        pings(far.port, 3)
        carried = far.traffic().since(before)

    assert (carried.up, carried.down) == (3 * len("PING\r\n"), 3 * len("+PONG\r\n"))
