"""What an operator relies on: probes that tell the truth, a list that changes, a token that is renewed."""

import asyncio
import json
import signal
from http.client import HTTPConnection
from typing import Any

import pytest

from tests.end_to_end.processes import ROOM, Child, Crowd, Stage, wait_until
from tests.redis_server import MortalServer


def get(worker: Child, path: str) -> tuple[int, str]:
    """Ask a worker; return the status and the body."""
    (listens,) = worker.entries("http_listens")
    connection = HTTPConnection(listens["host"], listens["port"], timeout=10)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


async def asked(worker: Child, path: str) -> tuple[int, Any]:
    """Ask a worker without holding up the emulator, which lives in this process; return the status and the JSON."""
    status, body = await asyncio.to_thread(get, worker, path)
    return status, json.loads(body)


async def failing(worker: Child) -> set[str]:
    """Return the names of the checks that fail."""
    status, told = await asked(worker, "/readyz")
    wrong = {name for name, check in told["checks"].items() if not check["ok"]}
    assert (status, told["ok"]) == ((503, False) if wrong else (200, True))
    return wrong


async def reads(worker: Child, what: set[str]) -> bool:
    """Tell whether these checks fail, and no others."""
    return await failing(worker) == what


async def metric(worker: Child, name: str) -> float:
    """Return the value of a sample, named with its labels as /metrics writes it."""
    _, text = await asyncio.to_thread(get, worker, "/metrics")
    return next(float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(f"{name} "))


async def test_a_worker_is_ready_once_the_first_backfill_is_done(stage: Stage) -> None:
    """Until then it says what it lacks; it is alive from the beginning."""
    for number in range(300):
        stage.react(uuid=f"user-{number}")
    stage.state.refuse(["elsewhere"])
    worker = await stage.follow(TALLY_HISTORY_RATE="2")

    assert await failing(worker) == {"backfill"}
    assert (await asked(worker, "/livez"))[0] == 200
    _, status = await asked(worker, "/status")
    assert status["redis"]["owed"][ROOM].keys() == {"first_start"}
    await wait_until(lambda: reads(worker, set()))
    await stage.settles()


async def test_a_restart_on_quiet_channels_is_ready_at_once(stage: Stage) -> None:
    """It waits for its first answer for minutes; that is no fault."""
    await (await stage.follow()).stopped()
    stage.emulator._polls._idle_seconds = 60
    worker = await stage.follow()

    await wait_until(lambda: reads(worker, set()), 5)
    assert (await asked(worker, "/status"))[1]["subscriptions"][0]["state"] == "starting"


async def test_probes_while_redis_is_away(mortal: tuple[Stage, MortalServer]) -> None:
    """Not ready, alive, and its pages answer; ready again when Redis is back."""
    stage, server = mortal
    worker = await stage.follow()
    await wait_until(lambda: reads(worker, set()))
    await server.kill()

    await wait_until(lambda: reads(worker, {"redis"}))
    assert (await asked(worker, "/livez"))[0] == 200
    assert (await asked(worker, "/status"))[1]["redis"] == "does not answer"
    assert await metric(worker, 'tally_ready{check="redis"}') == 0
    await server.revive()
    await wait_until(lambda: reads(worker, set()))


async def test_probes_while_pubnub_is_away(stage: Stage) -> None:
    """Alive; the state of its subscriptions tells. One that starts meanwhile is not ready."""
    worker = await stage.follow()
    await wait_until(lambda: reads(worker, set()))
    stage.state.set_outage("server_error")
    stage.emulator._polls._idle_seconds = 0
    stage.react()

    async def is_unreachable() -> bool:
        (told,) = (await asked(worker, "/status"))[1]["subscriptions"]
        return bool(told["state"] == "unreachable")

    await wait_until(is_unreachable)
    assert (await asked(worker, "/livez"))[0] == 200
    assert await metric(worker, 'tally_subscriptions{state="unreachable"}') == 1
    other = stage.start("run")
    await wait_until(lambda: bool(other.entries("http_listens")), what=lambda: other.err)
    await wait_until(lambda: reads(other, {"subscriptions"}))


async def test_healthcheck_says_what_a_probe_would(stage: Stage) -> None:
    """0 and ok, or 1 and what is wrong; 2 where there is nobody to ask."""
    worker = await stage.follow()
    await wait_until(lambda: reads(worker, set()))
    (listens,) = worker.entries("http_listens")
    address = f"0.0.0.0:{listens['port']}"

    well = await stage.do("healthcheck", TALLY_HTTP=address)
    alive = await stage.do("healthcheck", "--live", TALLY_HTTP=address)
    await worker.killed()
    dead = await stage.do("healthcheck", TALLY_HTTP=address)
    off = await stage.do("healthcheck", TALLY_HTTP="off")

    assert [(each.process.returncode, each.out) for each in (well, alive)] == [(0, "ok\n")] * 2
    assert (dead.process.returncode, dead.out[:17]) == (1, "no worker answers")
    assert (off.process.returncode, "TALLY_HTTP" in off.err) == (2, True)


async def test_the_list_changes_under_load(stage: Stage) -> None:
    """No event is lost: neither of who stays, nor of who comes; who goes is counted no more."""
    listed = stage.folder / "channels"
    listed.write_text("room\nhall\n")
    crowd = Crowd(stage.state, seed=5, channels=("room", "hall"))
    worker = await stage.follow(TALLY_CHANNELS=None, TALLY_CHANNELS_FILE=str(listed), TALLY_SETTLE_SECONDS="1")
    async with crowd.acting(stage.emulator, per_second=200):
        for number, channels in enumerate(["room hall attic", "room attic", "hall room"], 1):
            await crowd.has_acted(40)
            stage.react(uuid=f"user-{number}", channel="attic")
            listed.write_text("\n".join(channels.split()))
            worker.hang_up()
            await wait_until(lambda number=number: len(worker.entries("channels_reloaded")) == number)  # type: ignore[misc]
        await crowd.has_acted(40)

    await stage.settles()
    assert [(each["added"], each["removed"]) for each in worker.entries("channels_reloaded")] == [
        (1, 0),
        (0, 1),
        (1, 1),
    ]
    assert await metric(worker, 'tally_reloads_total{result="done"}') == 3
    assert await worker.stopped() == 0


async def test_a_list_that_cannot_be_read_changes_nothing(stage: Stage) -> None:
    """It is said what is wrong with it; an empty one is no list."""
    listed = stage.folder / "channels"
    listed.write_text(ROOM)
    worker = await stage.follow(TALLY_CHANNELS=None, TALLY_CHANNELS_FILE=str(listed))
    for number, text in enumerate(["room\na b\n", "", "# nobody\n"], 1):
        listed.write_text(text)
        worker.hang_up()
        await wait_until(lambda number=number: len(worker.entries("channels_not_reloaded")) == number)  # type: ignore[misc]
    listed.unlink()
    worker.hang_up()
    await wait_until(lambda: len(worker.entries("channels_not_reloaded")) == 4)

    stage.react()
    await stage.settles()
    assert "line 2" in worker.entries("channels_not_reloaded")[0]["reason"]
    assert await worker.stopped() == 0


async def test_a_restart_with_another_list_begins_nobody_anew(stage: Stage) -> None:
    """A channel more, and one fewer to a subscription: only the new one is owed its past."""
    worker = await stage.follow(TALLY_CHANNELS="b,c,d", TALLY_SETTLE_SECONDS="1")

    async def owes_nothing() -> bool:
        return not await stage.redis.keys("tally:*:owed")

    await wait_until(lambda: bool(worker.entries("gap_repaid")))
    await wait_until(owes_nothing)
    await worker.stopped()
    for channel in "abcd":
        stage.react(channel=channel)
    await stage.follow(
        polls=2, TALLY_CHANNELS="a,b,c,d", TALLY_CHANNELS_PER_SUBSCRIPTION="2", TALLY_SETTLE_SECONDS="60"
    )

    await stage.settles()
    assert {channel: await stage.owed(channel) for channel in "abcd"} == {
        "a": {"new_channel"},
        "b": set(),
        "c": set(),
        "d": set(),
    }


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
async def test_signals_while_it_starts(stage: Stage, number: signal.Signals) -> None:
    """A stop ends it, with 0, for nothing was read; a list to be read again is no reason to end."""
    await stage.redis.client_pause(12_000, all=True)
    worker = stage.start("run")
    await wait_until(lambda: bool(worker.entries("worker_starts")), what=lambda: worker.err)
    await asyncio.sleep(0.2)  # until it listens to signals, which nothing tells; Redis keeps it for seconds
    worker.ask(number)

    if number is signal.SIGHUP:
        await wait_until(lambda: bool(worker.entries("channels_reloaded")), what=lambda: worker.err)
        assert await worker.stopped() == 0
    else:
        assert await worker.ended() == 0
        assert not worker.entries("subscription_starts")
    assert "Traceback" not in worker.err


async def test_a_cache_trusted_for_less_than_an_idle_poll_is_said(stage: Stage) -> None:
    """It is safe, and dear: every answer of a quiet subscription is taken for a gap."""
    worker = await stage.follow(TALLY_CATCHUP_SECONDS="60")
    (said,) = worker.entries("catchup_is_short")
    assert (said["level"], said["seconds"], said["least_seconds"]) == ("warning", 60, 330)
