"""A whole worker: what it follows, what it owes, and how it resumes."""

import asyncio
import signal
from contextlib import suppress
from socket import AF_INET6, create_server

import aiohttp
import pytest

from tests.bench.in_process import Running
from tests.crowds import Crowd
from tests.default_port import default_port_taken
from tests.waiting import wait_until
from tests.worlds import KEYS, MESSAGE, ROOM, World
from worker import __version__
from worker.errors import ConfigurationError, ExitCode
from worker.telemetry import metrics


async def logs(worker: Running, event: str) -> None:
    """Wait until a worker has logged an entry of that name."""
    await wait_until(lambda: worker.entries(event), what=lambda: worker.err[-3000:])


async def test_a_first_start_marks_before_its_cursor(world: World) -> None:
    """Redis gets the marks and the progress of every channel before any cursor."""
    commands_seen: list[str] = []

    async def listen() -> None:
        async with world.redis.monitor() as monitor:
            listening.set()
            async for command in monitor.listen():
                commands_seen.append(command["command"])  # noqa: PERF401 - it is read while it grows

    listening = asyncio.Event()
    listener = asyncio.create_task(listen())
    try:
        await listening.wait()
        async with world.run_worker(TALLY_CHANNELS="room,hall"):
            await world.settles()
            await wait_until(
                lambda: any("HSET tally:cursor:" in command for command in commands_seen)
            )
            assert await world.owed("room") == await world.owed("hall") == {"first_start"}
            assert len(await world.cursors()) == 1
    finally:
        listener.cancel()
        await asyncio.wait([listener])

    saved = next(
        at for at, command in enumerate(commands_seen) if command.startswith("HSET tally:cursor:")
    )
    for channel in ("room", "hall"):
        for key in (KEYS.owed(channel), KEYS.progress(channel)):
            assert (
                next(
                    at
                    for at, command in enumerate(commands_seen)
                    if command.startswith(f"HSET {key} ")
                )
                < saved
            )


async def test_history_is_replayed_beside_live_events(world: World) -> None:
    """Actions before the first start count, and so do events during the replay."""
    crowd = Crowd(world.state, seed=11)
    for number in range(1_000):
        world.state.add(ROOM, MESSAGE, "reaction", "👍", f"old-{number}", published=False)

    busy = world.run_worker(TALLY_LOG_LEVEL="debug")
    async with busy as worker, crowd.acting(world.emulator):
        await logs(worker, "backfill_ends")
        await crowd.has_acted(20)
        await world.settles()


async def test_groups_and_wildcards_are_followed(world: World) -> None:
    """Their channels count, with their past, and are owed as new."""
    world.state.groups.add("team", ["red", "blue"])
    for channel in ("red", "blue", "a.one", "a.two"):
        world.state.add(channel, MESSAGE, "reaction", "👍", "past", published=False)

    async with world.run_worker(TALLY_CHANNELS="a.*", TALLY_CHANNEL_GROUPS="team"):
        for channel in ("red", "blue", "a.one", "a.two", "elsewhere"):
            world.react(channel=channel)
        await wait_until(lambda: world.redis.exists(KEYS.counts("a.two", MESSAGE)))
        world.state.remove(
            "elsewhere", MESSAGE, world.state.actions("elsewhere")[0].timetoken, "ana"
        )
        await world.settles()
        assert await world.owed("red") == {"first_start"}
        assert await world.owed("a.one") == await world.owed("a.two") == {"new_channel"}

    assert await world.redis.smembers("tally:channels") == {"red", "blue", "a.one", "a.two"}


async def test_a_worker_says_what_it_works_with(world: World) -> None:
    """The first entry names version, namespace, PubNub and Redis; the last one why it stops."""
    url = world.settings["REDIS_URL"]
    secret = url.replace("redis://", "redis://default:canary@")
    async with world.run_worker(TALLY_NAMESPACE="chat", REDIS_URL=secret) as worker:
        await logs(worker, "subscription_starts")

    assert "canary" not in worker.err
    (started,) = worker.entries("worker_starts")
    masked = secret.replace("canary", "***")
    expected = ("chat", world.emulator.origin, masked, __version__)
    fields = ("namespace", "origin", "redis", "version")
    assert tuple(started[field] for field in fields) == expected
    (stopped,) = worker.entries("worker_stops")
    assert (stopped["reason"], stopped["exit_code"]) == ("SIGTERM", 0)
    assert worker.err.rstrip().splitlines()[-1].count("worker_stops")


async def test_a_reload_without_a_file_says_so(world: World) -> None:
    """The list in the environment cannot change: SIGHUP changes nothing, and tells why."""
    async with world.run_worker() as worker:
        await logs(worker, "subscription_starts")
        signal.raise_signal(signal.SIGHUP)
        await logs(worker, "nothing_to_reload")

    (entry,) = worker.entries("nothing_to_reload")
    assert "TALLY_CHANNELS_FILE is not set" in entry["reason"]
    assert "What is in the environment changes with a restart only" in entry["reason"]
    assert worker.entries("channels_reloaded") == []


async def test_a_rate_changes_while_a_worker_runs(world: World) -> None:
    """It stands in the file of settings. A wrong one changes nothing, and says so."""
    file = world.folder / ".env"
    file.write_text("TALLY_HISTORY_RATE=10\n")
    async with world.run_worker(TALLY_HISTORY_RATE=None) as worker:
        await logs(worker, "subscription_starts")
        file.write_text("TALLY_HISTORY_RATE=fast\n")
        signal.raise_signal(signal.SIGHUP)
        await logs(worker, "history_rate_not_read")
        assert metrics.budget_rate._value.get() == 10
        file.write_text("TALLY_HISTORY_RATE=50\n")
        signal.raise_signal(signal.SIGHUP)
        await logs(worker, "history_rate_changed")
        assert metrics.budget_rate._value.get() == 50

    (entry,) = worker.entries("history_rate_changed")
    assert (entry["before"], entry["rate"]) == (10, 50)
    assert "TALLY_HISTORY_RATE" in worker.entries("history_rate_not_read")[0]["reason"]
    assert not worker.entries("nothing_to_reload")


async def test_a_worker_without_pages_notices_an_unfit_redis(world: World) -> None:
    """A heartbeat looks. Redis is fit again when its policy is."""
    world.settings["TALLY_SETTLE_SECONDS"] = "0.5"
    async with world.run_worker(TALLY_HTTP="off") as worker:
        await world.redis.config_set("maxmemory-policy", "allkeys-lru")
        try:
            await logs(worker, "redis_unfit")
        finally:
            await world.redis.config_set("maxmemory-policy", "noeviction")
        await logs(worker, "redis_fit_again")

    (entry,) = worker.entries("redis_unfit")
    assert "Set it to noeviction" in entry["reason"]


async def test_a_wildcard_starts_without_a_gap(world: World) -> None:
    """No channel is known, so nothing was missed that anybody could name."""
    async with world.run_worker(TALLY_CHANNELS="a.*") as worker:
        world.react(channel="a.one")
        await world.settles()

    (gap,) = worker.entries("gap")
    assert (gap["cause"], gap["channels"], gap["examples"]) == ("new_channel", 1, ["a.one"])


async def test_a_refused_wildcard_is_no_gap_without_channels(world: World) -> None:
    """Its refusal names it. The doctor counts no names of one request beside those of another."""
    world.settings["TALLY_CHANNELS"] = "room,news.*"
    world.state.refuse(["news.*", "room"])
    doctor = await world.run_command("doctor")
    async with world.commands().worker() as worker:
        await wait_until(lambda: len(worker.entries("pubnub_refused")) == 2)
        await wait_until(lambda: worker.entries("gap"))

    (gap,) = worker.entries("gap")
    assert (gap["cause"], gap["examples"]) == ("forbidden", ["room"])
    assert "PubNub, subscribe: answered 403, Forbidden. Refused: 'room', 'news.*'." in doctor.out


async def test_a_quiet_restart_is_ready_at_once(world: World) -> None:
    """It waits for its first answer for minutes, which is no fault."""
    async with world.run_worker():
        await world.settles()
    async with world.run_worker() as worker, aiohttp.ClientSession() as http:
        (at,) = worker.entries("http_listens")

        async def is_ready() -> bool:
            async with http.get(f"http://{at['host']}:{at['port']}/readyz") as answer:
                return answer.status == 200

        await wait_until(is_ready, what=lambda: worker.err)
        async with http.get(f"http://{at['host']}:{at['port']}/status") as answer:
            (subscription,) = (await answer.json())["subscriptions"]
            assert subscription["state"] == "starting"


async def test_a_restart_with_a_new_list_keeps_cursors(world: World) -> None:
    """There is one channel more, and smaller subscriptions. Only the new channel is owed."""

    async def owes_nothing() -> bool:
        return not await world.redis.keys("tally:*:owed")

    async with world.run_worker(TALLY_CHANNELS="b,c,d", TALLY_SETTLE_SECONDS="0.5") as worker:
        await logs(worker, "gap_repaid")
        await wait_until(owes_nothing, what=lambda: worker.err)
    for channel in "abcd":
        world.react(channel=channel)

    async with world.run_worker(TALLY_CHANNELS="a,b,c,d", TALLY_CHANNELS_PER_SUBSCRIPTION="2"):
        await wait_until(lambda: world.emulator.waiting == 2)
        await world.settles()
        assert {channel: await world.owed(channel) for channel in "abcd"} == {
            "a": {"new_channel"},
            "b": set(),
            "c": set(),
            "d": set(),
        }


async def test_a_taken_port_ends_the_start(world: World) -> None:
    """The port is configured. Exit 2, with the address. Nothing is followed."""
    address = world.emulator.origin
    with pytest.raises(ConfigurationError) as ended:
        async with world.commands().worker(TALLY_HTTP=address) as worker:
            await wait_until(worker.work.done)

    assert f"TALLY_HTTP: cannot listen at {address}" in str(ended.value)
    assert worker.entries("worker_fails")[0]["exit_code"] == ended.value.exit_code == ExitCode.USAGE
    assert "Traceback" not in worker.err


async def test_a_taken_default_port_is_only_logged(world: World) -> None:
    """A second worker on one machine starts without the pages."""
    async with default_port_taken(), world.run_worker(TALLY_HTTP=None) as worker:
        (entry,) = worker.entries("http_off")

    assert entry["level"] == "warning"
    assert "127.0.0.1:8080" in entry["reason"]


async def test_a_taken_default_port_ends_the_start_with_the_api(world: World) -> None:
    """Whoever turns the API on needs it: exit 2, with the address, and not ``http_off``."""
    async with default_port_taken():
        with pytest.raises(ConfigurationError) as ended:
            async with world.commands().worker(TALLY_HTTP=None, TALLY_API="on") as worker:
                await wait_until(worker.work.done)

    assert "TALLY_HTTP: cannot listen at 127.0.0.1:8080" in str(ended.value)
    assert worker.entries("worker_fails")[0]["exit_code"] == ended.value.exit_code == ExitCode.USAGE
    assert worker.entries("http_off") == []
    assert "Traceback" not in worker.err


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
async def test_a_free_port_is_found_and_logged(world: World, host: str) -> None:
    """The configured port is 0."""
    if "::" in host and not has_ipv6():
        pytest.skip("this machine has no IPv6")
    async with world.run_worker(TALLY_HTTP=f"{host}:0") as worker:
        (entry,) = worker.entries("http_listens")
        _, writer = await asyncio.open_connection(entry["host"], entry["port"])
        writer.close()


def has_ipv6() -> bool:
    """Tell whether a server can listen at ``::1`` here."""
    with suppress(OSError), create_server(("::1", 0), family=AF_INET6):
        return True
    return False
