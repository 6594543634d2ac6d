"""Redis goes away, hangs, forgets, fills up, while the service runs: it waits, and ends with the truth."""

import asyncio
import time

from tests.end_to_end.processes import KEYS, MESSAGE, ROOM, Crowd, Stage, wait_until
from tests.redis_server import MortalServer


async def test_a_crash_of_redis_is_waited_out(mortal: tuple[Stage, MortalServer]) -> None:
    """Events that come while Redis is dead are applied when it is back; the worker lives on, and says so once."""
    stage, server = mortal
    crowd = Crowd(stage.state, seed=41)
    worker = await stage.follow()
    async with crowd.acting(stage.emulator):
        await crowd.has_acted(20)
        await server.kill()
        await crowd.has_acted(20)
        await wait_until(lambda: bool(worker.entries("redis_unavailable")), what=lambda: worker.err)
        await server.revive()
        await crowd.has_acted(20)

    await stage.settles()
    assert worker.is_alive
    assert len(worker.entries("redis_unavailable")) == 1
    assert "Traceback" not in worker.err


async def test_a_long_hang_drops_and_reads_again(stage: Stage) -> None:
    """What waited longer than the settle time is not applied but read again, however many answers were waiting."""
    worker = await stage.follow(TALLY_SETTLE_SECONDS="0.5")

    async def has_nothing_in_hand() -> bool:
        return bool(await stage.cursors()) and not await stage.owed()

    await wait_until(has_nothing_in_hand)
    await stage.redis.client_pause(30_000, all=False)
    try:
        await stage.fills_the_queue()
        over = time.monotonic() + 0.6
        await wait_until(lambda: time.monotonic() > over)
    finally:
        await stage.redis.client_unpause()

    await stage.settles()
    assert worker.entries("answer_dropped"), worker.err
    assert await worker.stopped() == 0


async def test_forgotten_scripts_lose_nothing(stage: Stage) -> None:
    """SCRIPT FLUSH, again and again, under load: nothing is quarantined, and nothing is missing."""
    crowd = Crowd(stage.state, seed=42)
    worker = await stage.follow()

    async def forget() -> bool:
        await stage.redis.script_flush()
        return crowd.acts >= 100

    async with crowd.acting(stage.emulator, per_second=100):
        await asyncio.gather(*(wait_until(forget, 8, what=lambda: worker.err[-2500:]) for _ in range(4)))

    await stage.settles()
    assert worker.is_alive
    assert await stage.quarantine() == []
    assert await stage.owed() == {"first_start"}


async def test_cut_connections_lose_nothing(stage: Stage) -> None:
    """CLIENT KILL, again and again, under load: nothing is missing, the worker lives on."""
    crowd = Crowd(stage.state, seed=43)
    worker = await stage.follow()

    async def cut() -> bool:
        await stage.redis.client_kill_filter(_type="normal", skipme=True)
        return crowd.acts >= 100

    async with crowd.acting(stage.emulator):
        await wait_until(cut, 8, what=lambda: worker.err[-2500:])

    await stage.settles()
    assert worker.is_alive
    assert await stage.quarantine() == []


async def test_a_full_redis_is_waited_out(stage: Stage) -> None:
    """While Redis has no memory left, live events and a replay that PubNub slows down wait; then both go on."""
    crowd = Crowd(stage.state, seed=44)
    for number in range(500):
        stage.state.add(ROOM, MESSAGE, "reaction", "👍", f"old-{number}", published=False)
    stage.state.set_outage("throttle", ["actions"])
    worker = await stage.follow()
    await wait_until(lambda: stage.emulator.requests["actions"] > 0)
    async with crowd.acting(stage.emulator):
        asked = stage.emulator.requests["actions"]
        await stage.redis.config_set("maxmemory", 1)
        try:
            await crowd.has_acted(10)
            await wait_until(lambda: bool(worker.entries("redis_unavailable")), what=lambda: worker.err)
            # PubNub told the replay to wait a second: then it asks once more, or it waits for Redis already.
            over = time.monotonic() + 2
            await wait_until(lambda: stage.emulator.requests["actions"] > asked or time.monotonic() > over)
            stage.state.set_outage(None)
        finally:
            await stage.redis.config_set("maxmemory", 0)

    await stage.settles()
    assert worker.is_alive, worker.err
    assert await stage.quarantine() == []
    assert await worker.stopped() == 0


async def test_a_full_redis_holds_the_cursor(stage: Stage) -> None:
    """A kill in the middle of it loses nothing: the cursor did not pass what there was no memory for."""
    crowd = Crowd(stage.state, seed=45)
    worker = await stage.follow()
    await stage.settles()
    async with crowd.acting(stage.emulator):
        used = (await stage.redis.info("memory"))["used_memory"]
        await stage.redis.config_set("maxmemory", used + 10_000)
        try:
            await wait_until(lambda: bool(worker.entries("redis_unavailable")), what=lambda: worker.err)
            await crowd.has_acted(10)
            assert worker.is_alive
            await worker.killed()
        finally:
            await stage.redis.config_set("maxmemory", 0)
        await stage.follow()
        await crowd.has_acted(10)

    await stage.settles()
    assert "overflow" not in await stage.owed()


async def test_a_backfill_waits_for_redis(mortal: tuple[Stage, MortalServer]) -> None:
    """A command in the middle of a replay waits for a Redis that has crashed, and ends with the truth."""
    stage, server = mortal
    for number in range(2_000):
        stage.state.add(ROOM, MESSAGE, "reaction", "👍", f"old-{number}", published=False)
    child = stage.start("backfill", TALLY_HISTORY_RATE="20")
    await wait_until(lambda: stage.emulator.requests["actions"] > 5, what=lambda: child.err)
    await server.kill()
    await wait_until(lambda: bool(child.entries("redis_unavailable")) or not child.is_alive)
    await server.revive()

    assert await child.ended() == 0, child.err
    assert await stage.is_true()
    assert not await stage.redis.exists(KEYS.progress(ROOM))
