"""Redis crashes while the service runs: it waits, and ends with the truth. Other troubles: ``tests/commands``."""

from tests.end_to_end.processes import KEYS, MESSAGE, ROOM, Crowd, Stage, wait_until
from tests.redis_server import MortalServer


async def test_a_crash_of_redis_is_waited_out(mortal: tuple[Stage, MortalServer]) -> None:
    """Not ready, and alive; events that come while Redis is dead are applied when it is back. It is said once."""
    stage, server = mortal
    crowd = Crowd(stage.state, seed=41)
    worker = await stage.follow()
    await worker.reads(set())
    async with crowd.acting(stage.emulator):
        await crowd.has_acted(20)
        await server.kill()
        await crowd.has_acted(20)
        await wait_until(lambda: worker.entries("redis_unavailable"), what=lambda: worker.err)
        await worker.reads({"redis"})
        assert (await worker.asked("/livez"))[0] == 200
        assert (await worker.asked("/status"))[1]["redis"] == "does not answer"
        assert await worker.metric('tally_ready{check="redis"}') == 0
        await server.revive()
        await crowd.has_acted(20)

    await stage.settles()
    await worker.reads(set())
    assert worker.is_alive
    assert len(worker.entries("redis_unavailable")) == 1
    assert "Traceback" not in worker.err


async def test_a_backfill_waits_for_redis(mortal: tuple[Stage, MortalServer]) -> None:
    """A command in the middle of a replay waits for a Redis that has crashed, and ends with the truth."""
    stage, server = mortal
    for number in range(1_000):
        stage.state.add(ROOM, MESSAGE, "reaction", "👍", f"old-{number}", published=False)
    child = stage.start("backfill")
    await wait_until(lambda: stage.emulator.requests["actions"] > 2, what=lambda: child.err)
    stage.state.set_outage("server_error", ["actions"])  # it does not end before Redis does
    await server.kill()
    stage.state.set_outage(None)
    await wait_until(lambda: child.entries("redis_unavailable") or not child.is_alive)
    await server.revive()

    assert await child.ended() == 0, child.err
    assert await stage.is_true()
    assert not await stage.redis.exists(KEYS.progress(ROOM))
