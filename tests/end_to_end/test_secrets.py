"""No secret is ever written, whatever goes wrong: worker, doctor, board, emulator as processes.

``tests/commands/test_secrecy.py`` tries the other commands, and every way to give a secret.
"""

import asyncio
import signal
from collections.abc import AsyncIterator

import aiohttp
import pytest

from tests.bench.canaries import (
    CANARY,
    KEYS,
    PAYLOAD,
    POISONED,
    ROOM,
    WAYS,
    expect_no_word,
    expect_no_word_on,
    give,
    guard,
    lock_out,
    poison,
    redis_url,
    write_payloads,
)
from tests.processes import Child
from tests.waiting import wait_until
from tests.worlds import World
from worker.emulator import OUTAGE_KINDS, Emulator


@pytest.fixture
async def guarded(world: World) -> AsyncIterator[World]:
    """A PubNub with a key and a token, a Redis with a password, and every event in the log."""
    async with Emulator(seed=1, subscribe_key=KEYS["PUBNUB_SUBSCRIBE_KEY"]) as emulator:
        emulator.state.demand_token(KEYS["PUBNUB_AUTH_TOKEN"])
        await guard(world.redis)
        guarded = World(emulator, world.redis, redis_url(world.settings["REDIS_URL"]), world.folder)
        guarded.settings |= {"TALLY_LOG_LEVEL": "debug", "TALLY_LOG_FORMAT": "json"}
        del guarded.settings["PUBNUB_SUBSCRIBE_KEY"]
        try:
            yield guarded
        finally:
            guarded.end()
            await world.redis.execute_command("ACL", "DELUSER", "worker")


def give_secrets(world: World, *ways: str) -> None:
    """Give each secret in another of these ways, in turn."""
    secrets = {**KEYS, "REDIS_URL": world.settings.pop("REDIS_URL")}
    for number, (name, secret) in enumerate(secrets.items()):
        world.settings |= give(ways[number % len(ways)], world.folder, {name: secret})


async def page_of(worker: Child, path: str, method: str = "GET") -> str:
    """Return one of a worker's pages, headers included."""
    port = worker.entries("http_listens")[0]["port"]
    async with (
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(60)) as session,
        session.request(method, f"http://127.0.0.1:{port}{path}") as answer,
    ):
        return f"{answer.raw_headers}\n{await answer.text()}"


async def pages_of(worker: Child) -> list[str]:
    """Return every page there is, and some that do not exist."""
    real = ["/livez", "/readyz", "/metrics", "/status"]
    api = [f"/v1/{PAYLOAD}", f"/v1/channels/{PAYLOAD}/tallies?message={CANARY}", "/v1/changes"]
    paths = [*real, *api, "/", f"/{PAYLOAD}", f"/status?auth={CANARY}"]
    return [await page_of(worker, path, method) for path in paths for method in ("GET", "POST")]


async def quarantined(world: World, events: int, worker: Child) -> None:
    """Wait until so many events are quarantined."""

    async def are_quarantined() -> bool:
        return len(await world.quarantine()) >= events

    await wait_until(are_quarantined, what=worker.tail)


async def suffer_outages(world: World, worker: Child) -> None:
    """Let PubNub fail in every way, once each; what happens in between is counted."""
    for number, kind in enumerate(OUTAGE_KINDS):
        polls = world.emulator.requests["subscribe"] + 1
        world.state.set_outage(kind)
        await has_polled(world, polls, worker)
        world.state.set_outage(None)
        world.react(f"👍 {PAYLOAD}", uuid=f"user-{number}")
        await world.settles()


async def has_polled(world: World, times: int, worker: Child) -> None:
    """Wait until a worker has polled so often."""
    await wait_until(lambda: world.emulator.requests["subscribe"] >= times, what=worker.tail)


@pytest.mark.timeout(600)
async def test_a_worker_in_trouble_keeps_its_secrets(guarded: World) -> None:
    """Malformed events, outages, a wrong password, a 403: neither log nor page has one."""
    give_secrets(guarded, *WAYS)
    worker = guarded.start("run", TALLY_API="on")
    await worker.logs("http_listens")
    await wait_until(worker.is_ready, what=worker.tail)
    malformed = write_payloads(guarded.state)
    await quarantined(guarded, malformed, worker)
    await guarded.settles()
    pages = await pages_of(worker)

    poisoned = f"tally:{{{ROOM}}}:actions:{POISONED}"
    await guarded.redis.set(poisoned, PAYLOAD)
    guarded.state.inject(ROOM, poison())
    await worker.logs("key_damaged")
    await guarded.redis.delete(poisoned)

    await suffer_outages(guarded, worker)

    await lock_out(guarded.redis)
    await worker.fails({"redis", "redis_writes"})
    guarded.react(f"🎉 {PAYLOAD}")
    await worker.logs("redis_unavailable")
    pages += await pages_of(worker)
    await guard(guarded.redis)
    await guarded.settles()

    guarded.state.refuse([ROOM])
    await worker.logs("pubnub_refused")
    pages += await pages_of(worker)

    assert await worker.stopped() == 0
    expect_no_word("run", worker, form="json")
    expect_no_word_on(pages)


@pytest.mark.parametrize("way", WAYS)
async def test_a_doctor_keeps_its_secrets(guarded: World, way: str) -> None:
    """Each way to give a secret works, and the doctor shows none of them."""
    give_secrets(guarded, way)
    doctor = await guarded.do("doctor")

    assert doctor.process.returncode == 0, doctor.out
    expect_no_word("doctor", doctor, form="json")


async def test_a_board_keeps_its_secrets(guarded: World) -> None:
    """Its log has nothing of what it is asked, also while Redis refuses it."""
    give_secrets(guarded, "environment")
    await guarded.redis.hset("tally:meta", "schema", "1")
    board = guarded.start("board", "--port", "0")
    await wait_until(lambda: "\n" in board.out, what=board.tail)
    questions = (f"snapshot?auth={CANARY}", f"channels?search={PAYLOAD}", PAYLOAD)
    async with aiohttp.ClientSession() as session:
        for question in questions:
            async with session.get(f"{board.out.strip()}/{question}") as answer:
                await answer.read()
    await lock_out(guarded.redis)
    await board.logs("board_unreadable")

    assert await board.stopped() == 128 + signal.SIGTERM, board.err
    expect_no_word("board", board, form="json")


async def test_an_emulator_keeps_its_secrets(world: World) -> None:
    """It writes nothing of a request, be it well-formed or malformed."""
    child = world.start("emulator", "--port", "0")
    await wait_until(lambda: "\n" in child.out, what=child.tail)
    origin = child.out.split()[0].partition("=")[2]
    key = KEYS["PUBNUB_SUBSCRIBE_KEY"]
    async with aiohttp.ClientSession() as session:
        for path in (
            f"/v2/subscribe/{key}/{PAYLOAD}/0?tt=0&auth={CANARY}&uuid=x",
            f"/{PAYLOAD}?auth={CANARY}",
        ):
            async with session.get(f"http://{origin}{path}") as answer:
                await answer.read()
        for body in (b"{", f'{{"kind":"{PAYLOAD}"}}'.encode(), b"[" * 100_000, b"\xff"):
            async with session.post(
                f"http://{origin}/emulator/outage?auth={CANARY}", data=body
            ) as answer:
                await answer.read()
    reader, writer = await asyncio.open_connection(*origin.split(":"))
    writer.write(f"{PAYLOAD} {CANARY}\r\n\r\n".encode())
    await reader.read()
    writer.close()

    assert await child.stopped() == 0, child.err
    expect_no_word("emulator", child, form="json")
