"""``tally run`` from the first start to the last signal."""

import asyncio
import signal
from random import Random

import aiohttp
import pytest

from tests.emulator.clients import MESSAGE as THEIR_MESSAGE
from tests.emulator.clients import asyncio_sdk, reaction
from tests.end_to_end.processes import KEY, KEYS, MESSAGE, ROOM, Crowd, Stage, wait_until


async def test_reactions_through_the_sdk_are_counted(stage: Stage) -> None:
    """What the unmodified SDK adds and removes stands in the hash the contract names, and nothing else does."""
    await stage.follow()

    async with asyncio_sdk(stage.emulator.origin, "ana") as ana, asyncio_sdk(stage.emulator.origin, "ben") as ben:
        added = (await ana.add_message_action().channel(ROOM).message_action(reaction("👍")).future()).result
        await ben.add_message_action().channel(ROOM).message_action(reaction("👍")).future()
        await ben.add_message_action().channel(ROOM).message_action(reaction("🎉")).future()
        removal = ana.remove_message_action().channel(ROOM).message_timetoken(THEIR_MESSAGE)
        await removal.action_timetoken(added.action_timetoken).future()

    await stage.settles()
    assert await stage.redis.hgetall(f"tally:{{room}}:counts:{THEIR_MESSAGE}") == {
        "reaction:👍": "1",
        "reaction:🎉": "1",
    }


async def test_reactions_by_plain_http_are_counted(stage: Stage) -> None:
    """A POST counts one, a repeated one nothing, a DELETE takes the field away."""
    await stage.follow()
    path = f"http://{stage.emulator.origin}/v1/message-actions/{KEY}/channel/{ROOM}/message/{MESSAGE}"

    async with aiohttp.ClientSession() as http:
        for status in (200, 409):
            async with http.post(f"{path}?uuid=ana", json={"type": "reaction", "value": "👍"}) as answer:
                assert answer.status == status
                action = (await answer.json()).get("data")
            if action:
                timetoken = action["actionTimetoken"]
                await stage.settles()
                assert await stage.redis.hgetall(KEYS.counts(ROOM, MESSAGE)) == {"reaction:👍": "1"}
        async with http.delete(f"{path}/action/{timetoken}?uuid=ana") as answer:
            assert answer.status == 200

    await stage.settles()
    assert not await stage.redis.exists(KEYS.counts(ROOM, MESSAGE))


async def test_a_first_start_owes_before_it_reads(stage: Stage) -> None:
    """Redis is told of the debt of every channel before there is any cursor, and of its place in history too."""
    heard: list[str] = []

    async def listen() -> None:
        async with stage.redis.monitor() as monitor:
            listening.set()
            async for told in monitor.listen():
                heard.append(told["command"])  # noqa: PERF401 - it is read while it grows

    listening = asyncio.Event()
    listener = asyncio.create_task(listen())
    try:
        await listening.wait()
        await stage.follow(TALLY_CHANNELS="room,hall")
        await stage.settles()
        await wait_until(lambda: any("HSET tally:cursor:" in command for command in heard))
    finally:
        listener.cancel()
        await asyncio.wait([listener])

    assert await stage.owed("room") == await stage.owed("hall") == {"first_start"}
    assert len(await stage.cursors()) == 1
    saved = next(at for at, command in enumerate(heard) if command.startswith("HSET tally:cursor:"))
    for channel in ("room", "hall"):
        for key in (KEYS.owed(channel), KEYS.progress(channel)):
            assert next(at for at, command in enumerate(heard) if command.startswith(f"HSET {key} ")) < saved


async def test_history_is_replayed_beside_live_events(stage: Stage) -> None:
    """What lies before the first start is counted, while what happens during the replay is counted too."""
    crowd = Crowd(stage.state, seed=11)
    for number in range(1_000):
        stage.state.add(ROOM, MESSAGE, "reaction", "👍", f"old-{number}", published=False)

    async with crowd.acting(stage.emulator):
        worker = await stage.follow()
        await wait_until(lambda: bool(worker.entries("backfill_ends")), what=lambda: worker.err)
        await crowd.has_acted(20)

    await stage.settles()


async def test_a_stop_drains_and_a_restart_catches_up(stage: Stage) -> None:
    """SIGTERM ends with 0 and the cursor saved; what happens while the worker is down is counted afterwards."""
    crowd = Crowd(stage.state, seed=12)
    worker = await stage.follow()
    async with crowd.acting(stage.emulator):
        await crowd.has_acted(60)
        code = await worker.stopped()
    (before,) = (await stage.cursors()).values()
    for _ in range(20):
        crowd.act()

    await stage.follow()

    await stage.settles()
    assert (code, worker.out) == (0, "")
    assert worker.entries("worker_stops")[0]["exit_code"] == 0
    assert int(before["timetoken"]) > int(MESSAGE)
    assert await stage.owed() == {"first_start"}


@pytest.mark.parametrize("seed", [21])
async def test_a_kill_under_load_loses_nothing(stage: Stage, seed: int) -> None:
    """Killed three times at moments a seed has chosen, each time under load, the worker ends with the truth."""
    random = Random(seed)
    crowd = Crowd(stage.state, seed, ("room", "hall"))
    async with crowd.acting(stage.emulator):
        for _ in range(3):
            worker = await stage.follow(TALLY_CHANNELS="room,hall")
            await crowd.has_acted(random.randrange(25))
            await worker.killed()
        await stage.follow(TALLY_CHANNELS="room,hall")
        await crowd.has_acted(10)

    await stage.settles()
    assert "overflow" not in await stage.owed()


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
async def test_a_second_signal_ends_at_once(stage: Stage, second: signal.Signals) -> None:
    """While Redis hangs and the drain would wait a minute, the second signal ends the process."""
    worker = await stage.follow(TALLY_DRAIN_SECONDS="60")
    await stage.settles()
    await stage.redis.client_pause(30_000, all=False)
    try:
        stage.react()
        await wait_until(lambda: not stage.emulator.waiting)  # it has the answer in hand
        worker.ask(signal.SIGTERM)
        await wait_until(lambda: bool(worker.entries("stop_asked")))
        assert worker.is_alive
        worker.ask(second)
        assert await worker.ended(2) == 128 + second
    finally:
        await stage.redis.client_unpause()

    await stage.follow()
    await stage.settles()


async def test_a_drain_that_takes_too_long_fails(stage: Stage) -> None:
    """While Redis hangs, a stop ends after TALLY_DRAIN_SECONDS with 1, however many answers wait; none is lost."""
    worker = await stage.follow(TALLY_DRAIN_SECONDS="0.3")
    await wait_until(stage.cursors)  # the handshake is not in its hands any more
    await stage.settles()
    await stage.redis.client_pause(30_000, all=False)
    try:
        await stage.fills_the_queue()
        worker.ask(signal.SIGTERM)
        assert await worker.ended(5) == 1
    finally:
        await stage.redis.client_unpause()

    assert worker.entries("drain_timed_out")
    await stage.follow()
    await stage.settles()


async def test_groups_and_wildcards_are_followed(stage: Stage) -> None:
    """Channels that come through a group or a wildcard are counted, their past among it, and owed as new."""
    stage.state.groups.add("team", ["red", "blue"])
    for channel in ("red", "blue", "a.one", "a.two"):
        stage.state.add(channel, MESSAGE, "reaction", "👍", "past", published=False)

    await stage.follow(TALLY_CHANNELS="a.*", TALLY_CHANNEL_GROUPS="team")
    for channel in ("red", "blue", "a.one", "a.two", "elsewhere"):
        stage.react(channel=channel)

    await wait_until(lambda: stage.redis.exists(KEYS.counts("a.two", MESSAGE)))
    stage.state.remove("elsewhere", MESSAGE, stage.state.actions("elsewhere")[0].timetoken, "ana")
    await stage.settles()
    assert await stage.owed("red") == {"first_start"}
    assert await stage.owed("a.one") == await stage.owed("a.two") == {"new_channel"}
    assert await stage.redis.smembers("tally:channels") == {"red", "blue", "a.one", "a.two"}


async def test_a_full_answer_is_owed(stage: Stage) -> None:
    """A hundred messages in one answer may have been more: the channel is marked, and replayed."""
    worker = await stage.follow()
    await stage.settles()
    await worker.stopped()
    for number in range(150):
        stage.react(uuid=f"user-{number}")

    await stage.follow()

    await stage.settles()
    assert await stage.owed() == {"first_start", "overflow"}


async def test_a_cursor_too_old_is_owed(stage: Stage) -> None:
    """A cursor saved longer ago than PubNub's cache reaches: the channel is marked, and replayed."""
    worker = await stage.follow()
    await stage.settles()
    await worker.stopped()
    (cursor,) = await stage.cursors()
    await stage.redis.hincrby(cursor, "saved_at", -1000)
    stage.state.add(ROOM, MESSAGE, "reaction", "👍", "missed", published=False)

    await stage.follow()
    stage.react()

    await stage.settles()
    assert await stage.owed() == {"first_start", "stale_cursor"}


async def test_a_stop_ends_a_busy_replay(stage: Stage) -> None:
    """However busy with history, SIGTERM ends with 0 at once; the next start goes on where it was."""
    channels = [f"room-{number}" for number in range(8)]
    for channel in channels:
        for number in range(700):
            stage.state.add(channel, MESSAGE, "reaction", "👍", f"user-{number}", published=False)
    worker = stage.start("run", TALLY_CHANNELS=",".join(channels))
    await wait_until(lambda: stage.emulator.requests["actions"] > 20, what=lambda: worker.err)

    code = await worker.stopped()
    left = await stage.redis.keys("tally:*:progress")
    await stage.follow(TALLY_CHANNELS=",".join(channels))

    await stage.settles()
    assert (code, len(left)) == (0, 8)
