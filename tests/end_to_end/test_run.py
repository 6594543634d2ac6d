"""``tally run`` from the first start to the last signal."""

import signal

import aiohttp

from tests.crowds import Crowd
from tests.emulator.clients import MESSAGE as THEIR_MESSAGE
from tests.emulator.clients import asyncio_sdk, reaction
from tests.waiting import wait_until
from tests.worlds import KEY, KEYS, MESSAGE, ROOM, World


async def test_reactions_are_counted(world: World) -> None:
    """Reactions of the unmodified SDK stand in the hash of the contract, and nothing else does.

    By plain HTTP a POST counts one, a repeated POST nothing; a DELETE removes the field.
    """
    (world.folder / ".env").write_text("TALLY_CHANNELS=café, room\n", encoding="utf-8")
    await world.follow(TALLY_CHANNELS=None)
    counts = KEYS.counts(ROOM, THEIR_MESSAGE)

    async with (
        asyncio_sdk(world.emulator.origin, "ana") as ana,
        asyncio_sdk(world.emulator.origin, "ben") as ben,
    ):
        added = (
            await ana.add_message_action().channel(ROOM).message_action(reaction("👍")).future()
        ).result
        await ben.add_message_action().channel(ROOM).message_action(reaction("👍")).future()
        await ben.add_message_action().channel(ROOM).message_action(reaction("🎉")).future()
        removal = ana.remove_message_action().channel(ROOM).message_timetoken(THEIR_MESSAGE)
        await removal.action_timetoken(added.action_timetoken).future()
    await world.settles()
    assert counts == f"tally:{{room}}:counts:{THEIR_MESSAGE}"
    assert await world.redis.hgetall(counts) == {"reaction:👍": "1", "reaction:🎉": "1"}

    path = f"http://{world.emulator.origin}/v1/message-actions/{KEY}/channel/caf%C3%A9/message/{MESSAGE}"
    async with aiohttp.ClientSession() as http:
        for status in (200, 409):
            async with http.post(
                f"{path}?uuid=ana", json={"type": "reaction", "value": "👍"}
            ) as answer:
                assert answer.status == status
                action = (await answer.json()).get("data")
            if action:
                timetoken = action["actionTimetoken"]
            await world.settles()
            assert await world.redis.hgetall(KEYS.counts("café", MESSAGE)) == {"reaction:👍": "1"}
        async with http.delete(f"{path}/action/{timetoken}?uuid=ana") as answer:
            assert answer.status == 200

    await world.settles()
    assert not await world.redis.exists(KEYS.counts("café", MESSAGE))


async def test_a_stop_drains_and_a_restart_resumes(world: World) -> None:
    """SIGTERM ends with 0 and saved cursors, however busy a worker is with events and history.

    The next worker counts what happened meanwhile, and resumes the backfill.
    """
    channels = [f"room-{number}" for number in range(8)]
    for channel in channels:
        world.add_past(400, "🎉", channel)
    world.settings["TALLY_CHANNELS"] = ",".join(channels)
    crowd = Crowd(world.state, 12, tuple(channels))

    async def is_busy() -> bool:
        return world.emulator.requests["actions"] > 10 and bool(await world.cursors())

    async with crowd.acting(world.emulator):
        # Forty pages take three seconds, however fast the machine is.
        worker = world.start("run", TALLY_HISTORY_RATE="10")
        await wait_until(is_busy, what=worker.tail)
        code = await worker.stopped()
    (before,) = (await world.cursors()).values()
    left = await world.redis.keys("tally:*:progress")
    for _ in range(20):
        crowd.act()

    await world.follow()

    await world.settles()
    assert (code, worker.out) == (0, "")
    assert worker.entries("worker_stops")[0]["exit_code"] == 0
    assert int(before["timetoken"]) > int(MESSAGE)
    assert left
    for channel in channels:
        assert await world.owed(channel) == {"first_start"}


async def test_a_kill_under_load_loses_nothing(world: World) -> None:
    """Killed at once, and again while Redis is out of memory, it ends with the truth.

    No cursor passes an event that there was no memory for.
    """
    crowd = Crowd(world.state, 21, ("room", "hall"))
    world.settings["TALLY_CHANNELS"] = "room,hall"
    async with crowd.acting(world.emulator):
        worker = await world.follow()
        await crowd.has_acted(3)
        await worker.killed()

        worker = await world.follow()
        await crowd.has_acted(10)
        await world.redis.config_set("maxmemory", 1)
        try:
            await worker.logs("redis_unavailable")
            await crowd.has_acted(10)
            assert worker.is_alive
            await worker.killed()
        finally:
            await world.redis.config_set("maxmemory", 0)

        await world.follow()
        await crowd.has_acted(10)

    await world.settles()
    assert "overflow" not in await world.owed()


async def test_a_second_signal_ends_at_once(world: World) -> None:
    """Redis hangs, and a drain would last an hour; a second signal ends the process."""
    world.settings["TALLY_DRAIN_SECONDS"] = "3600"
    second = {await world.follow(): signal.SIGTERM, await world.follow(): signal.SIGINT}
    await world.settles()
    async with world.hanging_redis():
        polls = world.emulator.requests["subscribe"]
        world.react()
        # A worker that asks for the next answer has this one in hand.
        await wait_until(lambda: world.emulator.requests["subscribe"] >= polls + len(second))
        for worker in second:
            worker.ask(signal.SIGTERM)
        for worker, number in second.items():
            await worker.logs("stop_asked")
            assert worker.is_alive
            worker.ask(number)
            assert await worker.ended() == 128 + number
            assert worker.entries("worker_stops")[-1]["reason"] == f"a second {number.name}"
