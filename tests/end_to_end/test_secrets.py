"""No secret is ever written, whatever goes wrong: a worker, a doctor and an emulator as processes.

``tests/commands/test_secrecy.py`` tries every other command, and every way to give a secret, in one process.
"""

import asyncio
import signal
from collections.abc import AsyncIterator
from typing import Final

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
from tests.end_to_end.processes import Child, Stage, wait_until
from worker.emulator import OUTAGE_KINDS, Emulator

APPLY_WAIT_SECONDS: Final = 90.0


@pytest.fixture
async def guarded(stage: Stage) -> AsyncIterator[Stage]:
    """Have a PubNub that wants a key and a token, a Redis that wants a password, and everything logged."""
    async with Emulator(seed=1, subscribe_key=KEYS["PUBNUB_SUBSCRIBE_KEY"]) as emulator:
        emulator.state.demand_token(KEYS["PUBNUB_AUTH_TOKEN"])
        await guard(stage.redis)
        guarded = Stage(emulator, stage.redis, redis_url(stage.settings["REDIS_URL"]), stage.folder)
        guarded.settings |= {"TALLY_LOG_LEVEL": "debug", "TALLY_LOG_FORMAT": "json"}
        del guarded.settings["PUBNUB_SUBSCRIBE_KEY"]
        try:
            yield guarded
        finally:
            guarded.end()
            await stage.redis.execute_command("ACL", "DELUSER", "worker")


def give_secrets(stage: Stage, *ways: str) -> None:
    """Give the first secret the first way, the second one the second way, and so on, all ways in turn."""
    secrets = {**KEYS, "REDIS_URL": stage.settings.pop("REDIS_URL")}
    for number, (name, secret) in enumerate(secrets.items()):
        stage.settings |= give(ways[number % len(ways)], stage.folder, {name: secret})


async def ended(child: Child) -> int:
    """Wait until a command has ended, however busy this machine is; return its exit code."""
    return await child.ended(APPLY_WAIT_SECONDS)


async def page_of(worker: Child, path: str, method: str = "GET") -> tuple[int, str]:
    """Return a page of the worker: its status and all of it, headers too."""
    port = worker.entries("http_listens")[0]["port"]
    async with (
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(APPLY_WAIT_SECONDS)) as session,
        session.request(method, f"http://127.0.0.1:{port}{path}") as answer,
    ):
        return answer.status, f"{answer.raw_headers}\n{await answer.text()}"


async def pages_of(worker: Child) -> list[str]:
    """Return every page there is, and some there are not."""
    asked = (
        "/livez",
        "/readyz",
        "/metrics",
        "/status",
        "/",
        f"/{PAYLOAD}",
        f"/status?auth={CANARY}",
    )
    return [
        (await page_of(worker, path, method))[1] for path in asked for method in ("GET", "POST")
    ]


@pytest.mark.timeout(600)
async def test_a_worker_in_trouble_keeps_its_secrets(guarded: Stage) -> None:
    """Payloads of every kind, a poison event, outages, a wrong password, a cut connection, a 403: log and pages."""
    give_secrets(guarded, *WAYS)
    worker = guarded.start("run")

    async def comes(condition: object) -> None:
        await wait_until(condition, APPLY_WAIT_SECONDS, what=lambda: worker.err[-3000:])  # type: ignore[arg-type]

    async def are_quarantined(many: int) -> bool:
        return len(await guarded.quarantine()) >= many

    async def is_ready(status: int) -> bool:
        return (await page_of(worker, "/readyz"))[0] == status

    await comes(lambda: worker.entries("http_listens"))
    await comes(lambda: is_ready(200))
    malformed = write_payloads(guarded.state)
    await comes(lambda: are_quarantined(malformed))
    await guarded.settles(APPLY_WAIT_SECONDS)
    pages = await pages_of(worker)

    poisoned = f"tally:{{{ROOM}}}:actions:{POISONED}"
    await guarded.redis.set(poisoned, PAYLOAD)
    guarded.state.inject(ROOM, poison())
    await comes(lambda: are_quarantined(malformed + 1))
    await guarded.redis.delete(poisoned)

    for number, kind in enumerate(OUTAGE_KINDS):
        polls = guarded.emulator.requests["subscribe"]
        guarded.state.set_outage(kind)
        await comes(lambda polls=polls: guarded.emulator.requests["subscribe"] > polls)
        guarded.state.set_outage(None)
        guarded.react(f"👍 {PAYLOAD}", uuid=f"user-{number}")
        await guarded.settles(APPLY_WAIT_SECONDS)

    await lock_out(guarded.redis)
    await comes(lambda: is_ready(503))
    guarded.react(f"🎉 {PAYLOAD}")
    await comes(lambda: worker.entries("redis_unavailable"))
    pages += await pages_of(worker)
    await guard(guarded.redis)
    await guarded.settles(APPLY_WAIT_SECONDS)

    guarded.state.refuse([ROOM])
    await comes(lambda: worker.entries("pubnub_refused"))
    pages += await pages_of(worker)

    worker.ask(signal.SIGTERM)
    assert await ended(worker) == 0
    expect_no_word("run", worker, form="json")
    expect_no_word_on(pages)


@pytest.mark.parametrize("way", WAYS)
async def test_a_doctor_keeps_its_secrets(guarded: Stage, way: str) -> None:
    """Whichever way they were given: PubNub and Redis are content with them, and not one is told."""
    give_secrets(guarded, way)
    doctor = guarded.start("doctor")

    assert await ended(doctor) == 0, doctor.out
    expect_no_word("doctor", doctor, form="json")


async def test_an_emulator_tells_nothing_of_what_it_is_asked(stage: Stage) -> None:
    """It is asked with secrets and payloads, in good form and bad."""
    child = stage.start("emulator", "--port", "0")
    await wait_until(lambda: "\n" in child.out, APPLY_WAIT_SECONDS, what=lambda: child.err)
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
                f"http://{origin}/v1/message-actions/{key}/channel/x/message/1"
                f"?uuid=x&auth={CANARY}",
                data=body,
            ) as answer:
                await answer.read()
    reader, writer = await asyncio.open_connection(*origin.split(":"))
    writer.write(f"{PAYLOAD} {CANARY}\r\n\r\n".encode())
    await reader.read()
    writer.close()

    child.ask(signal.SIGTERM)
    assert await ended(child) == 0, child.err
    expect_no_word("emulator", child, form="json")
