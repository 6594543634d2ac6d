"""``tally run`` from the first start to the last signal."""

import signal

import aiohttp

from tests.emulator.clients import MESSAGE as THEIR_MESSAGE
from tests.emulator.clients import asyncio_sdk, reaction
from tests.end_to_end.processes import KEY, KEYS, MESSAGE, ROOM, Crowd, Stage, wait_until


async def test_reactions_are_counted(stage: Stage) -> None:
    """What the unmodified SDK adds and removes stands in the hash the contract names, and nothing else does.

    By plain HTTP a POST counts one, a repeated one nothing, a DELETE takes the field away.
    """
    (stage.folder / ".env").write_text("TALLY_CHANNELS=café, room\n", encoding="utf-8")
    await stage.follow(TALLY_CHANNELS=None)
    counts = KEYS.counts(ROOM, THEIR_MESSAGE)

    async with (
        asyncio_sdk(stage.emulator.origin, "ana") as ana,
        asyncio_sdk(stage.emulator.origin, "ben") as ben,
    ):
        added = (
            await ana.add_message_action().channel(ROOM).message_action(reaction("👍")).future()
        ).result
        await ben.add_message_action().channel(ROOM).message_action(reaction("👍")).future()
        await ben.add_message_action().channel(ROOM).message_action(reaction("🎉")).future()
        removal = ana.remove_message_action().channel(ROOM).message_timetoken(THEIR_MESSAGE)
        await removal.action_timetoken(added.action_timetoken).future()
    await stage.settles()
    assert counts == f"tally:{{room}}:counts:{THEIR_MESSAGE}"
    assert await stage.redis.hgetall(counts) == {"reaction:👍": "1", "reaction:🎉": "1"}

    path = f"http://{stage.emulator.origin}/v1/message-actions/{KEY}/channel/caf%C3%A9/message/{MESSAGE}"
    async with aiohttp.ClientSession() as http:
        for status in (200, 409):
            async with http.post(
                f"{path}?uuid=ana", json={"type": "reaction", "value": "👍"}
            ) as answer:
                assert answer.status == status
                action = (await answer.json()).get("data")
            if action:
                timetoken = action["actionTimetoken"]
            await stage.settles()
            assert await stage.redis.hgetall(KEYS.counts("café", MESSAGE)) == {"reaction:👍": "1"}
        async with http.delete(f"{path}/action/{timetoken}?uuid=ana") as answer:
            assert answer.status == 200

    await stage.settles()
    assert not await stage.redis.exists(KEYS.counts("café", MESSAGE))


async def test_a_stop_drains_and_a_restart_goes_on(stage: Stage) -> None:
    """SIGTERM ends with 0 and the cursors saved, however busy it is with events and with history.

    What happens while the worker is down is counted afterwards, and the replay goes on where it was.
    """
    channels = [f"room-{number}" for number in range(8)]
    for channel in channels:
        for number in range(400):
            stage.state.add(channel, MESSAGE, "reaction", "🎉", f"old-{number}", published=False)
    stage.settings["TALLY_CHANNELS"] = ",".join(channels)
    crowd = Crowd(stage.state, 12, tuple(channels))

    async def is_busy() -> bool:
        return stage.emulator.requests["actions"] > 10 and bool(await stage.cursors())

    async with crowd.acting(stage.emulator):
        worker = stage.start(
            "run", TALLY_HISTORY_RATE="10"
        )  # forty pages: three seconds, however fast the machine
        await wait_until(is_busy, what=lambda: worker.err)
        code = await worker.stopped()
    (before,) = (await stage.cursors()).values()
    left = await stage.redis.keys("tally:*:progress")
    for _ in range(20):
        crowd.act()

    await stage.follow()

    await stage.settles()
    assert (code, worker.out) == (0, "")
    assert worker.entries("worker_stops")[0]["exit_code"] == 0
    assert int(before["timetoken"]) > int(MESSAGE)
    assert left
    assert {frozenset(await stage.owed(channel)) for channel in channels} == {
        frozenset({"first_start"})
    }


async def test_a_kill_under_load_loses_nothing(stage: Stage) -> None:
    """Killed at once, and again while Redis has no memory left, each time under load, it ends with the truth.

    No cursor has passed what there was no memory for.
    """
    crowd = Crowd(stage.state, 21, ("room", "hall"))
    stage.settings["TALLY_CHANNELS"] = "room,hall"
    async with crowd.acting(stage.emulator):
        worker = await stage.follow()
        await crowd.has_acted(3)
        await worker.killed()

        worker = await stage.follow()
        await crowd.has_acted(10)
        await stage.redis.config_set("maxmemory", 1)
        try:
            await wait_until(lambda: worker.entries("redis_unavailable"), what=lambda: worker.err)
            await crowd.has_acted(10)
            assert worker.is_alive
            await worker.killed()
        finally:
            await stage.redis.config_set("maxmemory", 0)

        await stage.follow()
        await crowd.has_acted(10)

    await stage.settles()
    assert "overflow" not in await stage.owed()


async def test_a_second_signal_ends_at_once(stage: Stage) -> None:
    """While Redis hangs and the drain would wait an hour, the second signal ends the process, whichever it is."""
    stage.settings["TALLY_DRAIN_SECONDS"] = "3600"
    second = {await stage.follow(): signal.SIGTERM, await stage.follow(): signal.SIGINT}
    await stage.settles()
    async with stage.hanging_redis():
        polls = stage.emulator.requests["subscribe"]
        stage.react()
        # Who asks for the next answer has this one in hand.
        await wait_until(lambda: stage.emulator.requests["subscribe"] >= polls + len(second))
        for worker in second:
            worker.ask(signal.SIGTERM)
        for worker, number in second.items():
            await wait_until(lambda worker=worker: worker.entries("stop_asked"))  # type: ignore[misc]
            assert worker.is_alive
            worker.ask(number)
            assert await worker.ended() == 128 + number
