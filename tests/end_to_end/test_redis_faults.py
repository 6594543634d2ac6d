"""Redis crashes while the service runs. Other troubles of Redis: ``tests/commands``."""

from tests.crowds import Crowd
from tests.redis_server import MortalServer
from tests.waiting import wait_until
from tests.worlds import KEYS, ROOM, World


async def test_a_worker_outlives_a_crash_of_redis(mortal: tuple[World, MortalServer]) -> None:
    """Without Redis it is alive and not ready; it counts later what happened meanwhile.

    One log entry tells of the outage, however long it lasts.
    """
    world, server = mortal
    crowd = Crowd(world.state, seed=41)
    worker = await world.follow()
    await worker.fails(set())
    async with crowd.acting(world.emulator):
        await crowd.has_acted(20)
        await server.kill()
        await crowd.has_acted(20)
        await worker.logs("redis_unavailable")
        await worker.fails({"redis", "redis_writes"})
        assert (await worker.get_json("/livez"))[0] == 200
        assert (await worker.get_json("/status"))[1]["redis"] == "does not answer"
        assert await worker.metric('tally_ready{check="redis"}') == 0
        await server.revive()
        await crowd.has_acted(20)

    await world.settles()
    await worker.fails(set())
    assert worker.is_alive
    assert len(worker.entries("redis_unavailable")) == 1
    assert "Traceback" not in worker.err


async def test_a_backfill_outlives_a_crash_of_redis(mortal: tuple[World, MortalServer]) -> None:
    """A command in the middle of a replay waits for Redis, and ends with the truth."""
    world, server = mortal
    world.add_past(1_000)
    child = world.start("backfill")
    await wait_until(lambda: world.emulator.requests["actions"] > 2, what=child.tail)
    world.state.set_outage("server_error", ["actions"])  # it does not end before Redis does
    await server.kill()
    world.state.set_outage(None)
    await wait_until(lambda: child.entries("redis_unavailable") or not child.is_alive)
    await server.revive()

    assert await child.ended() == 0, child.err
    assert await world.is_exact()
    assert not await world.redis.exists(KEYS.progress(ROOM))
