"""No secret is ever written, whatever goes wrong, however loud the log."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from itertools import cycle
from urllib.parse import quote

import aiohttp
import pytest
from aiohttp import web

from tests.end_to_end.processes import KEY, MESSAGE, ROOM, Child, Stage, wait_until
from tests.redis_server import free_port
from worker.cli import app
from worker.emulator import OUTAGE_KINDS
from worker.settings import SECRETS

CANARY = "canary"
"""Stands in every secret, in a form that no encoding changes."""


@pytest.fixture
async def guarded(stage: Stage) -> AsyncIterator[Stage]:
    """Give the stage secrets of every kind, and a Redis that wants one."""
    await stage.redis.execute_command("ACL", "SETUSER", "worker", "on", f">{CANARY}-word", "~*", "&*", "+@all")
    stage.settings |= {
        "PUBNUB_PUBLISH_KEY": "pub-c-test",
        "PUBNUB_SECRET_KEY": f"sec-c-{CANARY}",
        "PUBNUB_AUTH_TOKEN": f"q+{CANARY}/x=",
        "REDIS_URL": stage.settings["REDIS_URL"].replace("://", f"://worker:{CANARY}-word@"),
        "TALLY_LOG_LEVEL": "debug",
    }
    yield stage
    await stage.redis.execute_command("ACL", "DELUSER", "worker")


def expect_silence(stage: Stage) -> None:
    """Expect that no command has written a secret."""
    for child in stage.children:
        assert CANARY not in child.out + child.err


async def test_a_worker_in_trouble_keeps_its_secrets(guarded: Stage) -> None:
    """Outages of every kind, a 403, a cut connection and a changed password, at the loudest level."""
    worker = await guarded.follow()
    for number, kind in enumerate(OUTAGE_KINDS):
        polls = guarded.emulator.requests["subscribe"]
        guarded.state.set_outage(kind)
        await wait_until(lambda polls=polls: guarded.emulator.requests["subscribe"] > polls)  # type: ignore[misc]
        guarded.state.set_outage(None)
        guarded.react(uuid=f"user-{number}")
        await guarded.settles()
    await guarded.redis.execute_command("ACL", "SETUSER", "worker", "resetpass", ">another")
    await guarded.redis.client_kill_filter(_type="normal", skipme=True)
    guarded.react("🎉")
    await wait_until(lambda: bool(worker.entries("redis_unavailable")), what=lambda: worker.err)
    await guarded.redis.execute_command("ACL", "SETUSER", "worker", f">{CANARY}-word")
    await guarded.settles()
    guarded.state.refuse([ROOM])
    await wait_until(lambda: bool(worker.entries("pubnub_refused")))

    assert await worker.stopped() == 0
    expect_silence(guarded)


async def test_commands_in_trouble_keep_their_secrets(guarded: Stage) -> None:
    """What doctor and backfill say of a good day, of a refusal, and of a password that is wrong."""
    for number in range(10):
        guarded.react(uuid=f"user-{number}")
    well = [await guarded.do("doctor"), await guarded.do("backfill")]
    guarded.state.refuse([ROOM])
    refused = [await guarded.do("doctor"), await guarded.do("backfill")]
    guarded.state.refuse()
    await guarded.redis.execute_command("ACL", "SETUSER", "worker", "resetpass", ">another")
    locked = [await guarded.do("doctor"), await guarded.do("backfill"), await guarded.do("show", ROOM, "1")]

    assert [child.process.returncode for child in well + refused + locked] == [0, 0, 3, 3, 4, 4, 4]
    expect_silence(guarded)


@pytest.mark.parametrize(
    ("name", "secret"),
    [
        ("REDIS_URL", "redis://:canary/word@localhost:6379/0"),
        ("REDIS_URL", "redis://:canary#word@localhost:6379/0"),
        ("REDIS_URL", "redis://:canary[word@localhost:6379/0"),
        ("REDIS_URL", "redis://:canary℀word@localhost:6379/0"),
        ("REDIS_URL", "canary"),
        ("PUBNUB_SECRET_KEY", "sec-c-canary!"),
    ],
)
async def test_a_malformed_secret_is_not_shown(stage: Stage, name: str, secret: str) -> None:
    """A secret that cannot be read is refused with 2, by the name of its setting."""
    child = await stage.do("run", **{name: secret, "PUBNUB_PUBLISH_KEY": "pub-c-test"})

    assert child.process.returncode == 2
    assert name in child.err
    expect_silence(stage)


VARIANTS = [
    ("debug", "console", "files"),
    ("error", "json", ".env"),
]
"""How loud, in which form, and by which way the secrets are given; through the environment they are above."""

PAYLOAD = "p4yl04d"
"""Stands in everything that users write."""

PATIENCE_SECONDS = 90.0

POISONED = "17600000001728661"
"""A message that Redis refuses every event of."""


@pytest.fixture(params=VARIANTS, ids="-".join)
def loud(guarded: Stage, request: pytest.FixtureRequest) -> Stage:
    """Give the secrets one way or another, and have it logged one way or another."""
    level, form, way = request.param
    guarded.settings |= {"TALLY_LOG_LEVEL": level, "TALLY_LOG_FORMAT": form, "TALLY_HTTP": f"127.0.0.1:{free_port()}"}
    guarded.settings["TALLY_SETTLE_SECONDS"] = "1"  # verify waits as long between its looks
    if way != "environment":
        given = {name: guarded.settings.pop(name) for name in SECRETS if name in guarded.settings}
        if way == ".env":
            (guarded.folder / ".env").write_text("".join(f"{name}='{secret}'\n" for name, secret in given.items()))
        for name, secret in given.items():
            if way == "files":
                (guarded.folder / name).write_text(f"{secret}\n")
                guarded.settings[f"{name}_FILE"] = str(guarded.folder / name)
    return guarded


def write_payloads(stage: Stage) -> int:
    """Let users write what nobody may find in a log; return how many of these will be quarantined."""
    for number in range(3):
        stage.state.add(ROOM, MESSAGE, f"type-{PAYLOAD}", f"value-{PAYLOAD}", f"uuid-{PAYLOAD}-{number}")
    stage.state.publish(ROOM, {"text": f"chat {PAYLOAD}"}, f"uuid-{PAYLOAD}")
    usual = {"type": PAYLOAD, "value": PAYLOAD, "actionTimetoken": "17600000002020754", "messageTimetoken": MESSAGE}
    told = {"a": "5", "f": 0, "i": PAYLOAD, "k": KEY, "c": ROOM, "u": {"meta": PAYLOAD}}
    malformed: list[object] = [
        {**told, "e": 3, "d": {"event": PAYLOAD, "data": usual}},
        {**told, "e": 3, "d": {"event": "added", "data": {**usual, "actionTimetoken": PAYLOAD}}},
        {**told, "e": 3, "d": {"event": "added", "data": {**usual, "messageTimetoken": f"'\"{PAYLOAD}"}}},
        {**told, "e": 3, "d": {"event": "added", "data": {**usual, "value": [PAYLOAD]}}},
        {**told, "e": 3, "d": {"event": "added", "data": {**usual, "value": f"{PAYLOAD}\ud83d"}}},
        {**told, "e": 3, "d": {"event": "added", "data": {**usual, "type": PAYLOAD * 10_000}}},
        {**told, "e": 3, "d": PAYLOAD},
        [PAYLOAD],
        PAYLOAD,
    ]
    for message in malformed:
        stage.state.inject(ROOM, raw=json.dumps(message))
    return len(malformed)


async def expect_no_word(stage: Stage, *pages: str) -> None:
    """Expect no secret anywhere, and nothing of what users write but where values are printed on purpose."""
    for child in stage.children:
        arguments = str(child.process.args)
        for secret in (CANARY, quote(CANARY), KEY):
            assert secret not in child.out + child.err, arguments
        assert PAYLOAD not in child.err, arguments
        assert PAYLOAD not in child.out or any(word in arguments for word in ("'show'", "'explain'", "'verify'"))
        if stage.settings["TALLY_LOG_FORMAT"] == "json":
            for line in child.err.splitlines():
                assert line.startswith(("{", "tally: ", "  ")), child.err
    for page in pages:
        for secret in (CANARY, KEY, PAYLOAD):
            assert secret not in page, page


async def patiently(stage: Stage, *arguments: str, **settings: str | None) -> Child:
    """Start a command, and return when it has ended, however busy this machine is."""
    child = stage.start(*arguments, **settings)
    await child.ended(PATIENCE_SECONDS)
    return child


async def page_of(stage: Stage, path: str, method: str = "GET") -> tuple[int, str]:
    """Return a page of the worker that runs: its status and all of it, headers too; 0 where nobody answers."""
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(10)) as session,
            session.request(method, f"http://{stage.settings['TALLY_HTTP']}{path}") as answer,
        ):
            return answer.status, f"{answer.raw_headers}\n{await answer.text()}"
    except aiohttp.ClientError:
        return 0, ""


async def pages_of(stage: Stage) -> list[str]:
    """Return every page there is, and some there are not."""
    asked = ("/livez", "/readyz", "/metrics", "/status", "/", f"/{PAYLOAD}", f"/status?auth={CANARY}")
    return [(await page_of(stage, path, method))[1] for path in asked for method in ("GET", "POST")]


async def try_run(stage: Stage) -> None:
    """A day of a worker: payloads of every kind, outages, a 403, a wrong password, a poison event, a failing page."""
    worker = await stage.follow()
    malformed = write_payloads(stage)
    await wait_until(lambda: is_quarantined(stage, malformed), what=lambda: worker.err)
    await stage.settles()
    pages = await pages_of(stage)
    await stage.redis.set(f"tally:{{{ROOM}}}:actions:{POISONED}", PAYLOAD)
    stage.state.inject(ROOM, poison_for(POISONED))
    await wait_until(lambda: is_quarantined(stage, malformed + 1), what=lambda: worker.err)
    await stage.redis.delete(f"tally:{{{ROOM}}}:actions:{POISONED}")
    for number, kind in enumerate(OUTAGE_KINDS):
        polls = stage.emulator.requests["subscribe"]
        stage.state.set_outage(kind)
        await wait_until(lambda polls=polls: stage.emulator.requests["subscribe"] > polls)  # type: ignore[misc]
        stage.state.set_outage(None)
        stage.react(f"👍 {PAYLOAD}", uuid=f"user-{number}")
        await stage.settles()
    await stage.redis.execute_command("ACL", "SETUSER", "worker", "resetpass", ">another")
    await stage.redis.client_kill_filter(_type="normal", skipme=True)
    await wait_until(lambda: is_status(stage, "/readyz", 503), what=lambda: worker.err)
    pages += await pages_of(stage)
    await stage.redis.execute_command("ACL", "SETUSER", "worker", f">{CANARY}-word")
    await wait_until(lambda: is_status(stage, "/readyz", 200), what=lambda: worker.err)
    stage.state.refuse([ROOM])
    await wait_until(lambda: is_owed(stage, "forbidden"), what=lambda: worker.err)
    await stage.redis.hset(f"tally:{{{ROOM}}}:owed", "overflow", PAYLOAD)
    pages += await pages_of(stage)
    assert (await page_of(stage, "/status"))[0] == 200
    if worker.is_alive:
        await worker.stopped()
    await stage.redis.hset(f"tally:{{{ROOM}}}:progress", mapping={"newest": PAYLOAD, "actions": PAYLOAD})
    dead = stage.start("run")
    assert await dead.ended(PATIENCE_SECONDS) == 1, dead.err
    assert "dies" in dead.err
    await expect_no_word(stage, *pages)


def poison_for(message: str) -> dict[str, object]:
    """Return an event of a message, well-formed."""
    data = {"type": PAYLOAD, "value": PAYLOAD, "actionTimetoken": "17600000002020755", "messageTimetoken": message}
    told = {"a": "5", "f": 0, "e": 3, "i": PAYLOAD, "p": {"t": "17600000002110345", "r": 43}, "k": KEY, "c": ROOM}
    return {**told, "d": {"source": "actions", "version": "1.0", "event": "added", "data": data}}


async def is_quarantined(stage: Stage, many: int) -> bool:
    """Whether so many things are in the quarantine."""
    return len(await stage.quarantine()) >= many


async def is_status(stage: Stage, path: str, status: int) -> bool:
    """Whether a page has this status."""
    return (await page_of(stage, path))[0] == status


async def is_owed(stage: Stage, cause: str) -> bool:
    """Whether the room owes a repair for this cause."""
    return cause in await stage.owed()


async def try_command(stage: Stage, *arguments: str) -> None:
    """A command in good days, locked out, without a Redis, refused, in an outage, on a Redis full of nonsense."""
    write_payloads(stage)
    await patiently(stage, "backfill")
    stage.state.add(ROOM, MESSAGE, f"type-{PAYLOAD}", f"other-{PAYLOAD}", f"uuid-{PAYLOAD}")
    stage.start(*arguments)
    pool = stage.redis.connection_pool.connection_kwargs
    url = f"redis://{pool['host']}:{pool['port']}"
    nobody = {"REDIS_URL_FILE": None, "REDIS_URL": f"redis://:{CANARY}@127.0.0.1:1"}
    locked = {**nobody, "REDIS_URL": url.replace("://", f"://worker:{CANARY}-wrong@")}
    for settings in (nobody, locked):
        stage.start(*arguments, **settings)
    for child in stage.children:
        await child.ended(PATIENCE_SECONDS)
    stage.state.refuse([ROOM])
    await patiently(stage, *arguments)
    stage.state.refuse()
    if stage.settings["TALLY_LOG_LEVEL"] == "debug":
        stage.state.set_outage("html")
        await patiently(stage, *arguments)
        stage.state.set_outage(None)
    await stage.redis.hset(f"tally:{{{ROOM}}}:owed", "overflow", PAYLOAD)
    await stage.redis.hset(f"tally:{{{ROOM}}}:progress", mapping={"newest": PAYLOAD, "actions": PAYLOAD})
    await stage.redis.hset(f"tally:{{{ROOM}}}:counts:{MESSAGE}", f"type-{PAYLOAD}:{PAYLOAD}", PAYLOAD)
    await stage.redis.hset(f"tally:{{{ROOM}}}:actions:{MESSAGE}", f"type-{PAYLOAD}:{PAYLOAD}:{PAYLOAD}", PAYLOAD)
    await stage.redis.xadd(f"tally:{{{ROOM}}}:journal", {"after": PAYLOAD, "origin": PAYLOAD, "0": PAYLOAD})
    await stage.redis.set(f"tally:{{{ROOM}}}:head", PAYLOAD)
    await patiently(stage, *arguments)
    await expect_no_word(stage)


async def try_config(stage: Stage) -> None:
    """What is in force, and what is wrong with it."""
    stage.start("config")
    stage.start("config", "--json")
    stage.start("config", PUBNUB_SECRET_KEY=f"{CANARY} {CANARY}", TALLY_NAMESPACE="a b", REDIS_URL=f"{CANARY}://x")
    stage.start("config", TALLY_TOKEN=CANARY, PUBNUB_AUTH_TOKN=CANARY)
    for child in stage.children:
        await child.ended(PATIENCE_SECONDS)
    await expect_no_word(stage)


async def try_healthcheck(stage: Stage) -> None:
    """Nobody there; a worker that is well; one whose Redis refuses it."""
    await patiently(stage, "healthcheck")
    worker = await stage.follow()
    write_payloads(stage)
    await wait_until(lambda: is_status(stage, "/readyz", 200), what=lambda: worker.err)
    await patiently(stage, "healthcheck")
    await stage.redis.execute_command("ACL", "SETUSER", "worker", "resetpass", ">another")
    await stage.redis.client_kill_filter(_type="normal", skipme=True)
    await wait_until(lambda: is_status(stage, "/readyz", 503), what=lambda: worker.err)
    refused = await patiently(stage, "healthcheck")
    await stage.redis.execute_command("ACL", "SETUSER", "worker", f">{CANARY}-word")

    assert refused.process.returncode == 1
    await expect_no_word(stage)


async def try_emulator(stage: Stage) -> None:
    """It is asked with secrets and payloads, in good form and bad."""
    child = stage.start("emulator", "--port", "0")
    await wait_until(lambda: "\n" in child.out, what=lambda: child.err)
    origin = child.out.split()[0].partition("=")[2]
    async with aiohttp.ClientSession() as session:
        for path in (f"/v2/subscribe/{KEY}/{PAYLOAD}/0?tt=0&auth={CANARY}&uuid=x", f"/{PAYLOAD}?auth={CANARY}"):
            async with session.get(f"http://{origin}{path}") as answer:
                await answer.read()
        for body in (b"{", f'{{"kind":"{PAYLOAD}"}}'.encode(), b"[" * 100_000, b"\xff"):
            async with session.post(f"http://{origin}/emulator/outage?auth={CANARY}", data=body) as answer:
                await answer.read()
    reader, writer = await asyncio.open_connection(*origin.split(":"))
    writer.write(f"{PAYLOAD} {CANARY}\r\n\r\n".encode())
    await reader.read()
    writer.close()

    assert await child.stopped() == 0, child.err
    assert KEY not in child.err
    await expect_no_word(stage)


async def try_demo(stage: Stage) -> None:
    """It has settings of its own, whatever the user's are."""
    (stage.folder / "demo").mkdir()
    child = stage.start("demo", "--seconds", "1", "--rate", "20", TMPDIR=str(stage.folder / "demo"))
    assert await child.ended(90) == 0, child.err
    await expect_no_word(stage)


SCENARIOS: dict[str, Callable[[Stage], Awaitable[None]]] = {
    "run": try_run,
    "config": try_config,
    "healthcheck": try_healthcheck,
    "emulator": try_emulator,
    "demo": try_demo,
    "backfill": lambda stage: try_command(stage, "backfill"),
    "reconcile": lambda stage: try_command(stage, "reconcile", "--json"),
    "verify": lambda stage: try_command(stage, "verify"),
    "doctor": lambda stage: try_command(stage, "doctor"),
    "show": lambda stage: try_command(stage, "show", ROOM, MESSAGE),
    "explain": lambda stage: try_command(stage, "explain", ROOM, MESSAGE),
}


@pytest.mark.timeout(400)
@pytest.mark.parametrize("command", [each.name or each.callback.__name__ for each in app.registered_commands])  # type: ignore[union-attr]
async def test_no_command_tells_secrets_or_payloads(loud: Stage, command: str) -> None:
    """In good days and in trouble, at every level and in every form; a command without a scenario fails this."""
    assert command in SCENARIOS, f"add a scenario for tally {command}"
    await SCENARIOS[command](loud)


@pytest.mark.timeout(400)
@pytest.mark.parametrize("status", [400, 403, 500])
async def test_what_pubnub_repeats_of_us_is_not_told(guarded: Stage, status: int) -> None:
    """An error that echoes the whole request, secrets and all, in any spelling, brings none of them into our words."""
    secrets = [guarded.settings[name] for name in SECRETS if name in guarded.settings and name != "REDIS_URL"]

    echoes: Iterator[Callable[[web.BaseRequest], str]] = cycle(
        [
            lambda request: f"Bad request {request.raw_path}",
            lambda request: f"Bad request {request.path_qs}",
            lambda request: f"Bad key '{request.query.get('auth')}', '{request.query.get('signature')}'.",
            lambda _: " ".join(secrets),
            lambda _: " ".join(quote(secret, safe="") for secret in secrets),
            lambda _: " ".join(f"x{secret}y" for secret in secrets),
        ]
    )

    async def echo(request: web.BaseRequest) -> web.Response:
        return web.json_response({"status": status, "error": True, "message": next(echoes)(request)}, status=status)

    server = web.Server(echo)
    listener = await asyncio.get_running_loop().create_server(server, "127.0.0.1", 0)
    origin = f"127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    try:
        worker = guarded.start("run", PUBNUB_ORIGIN=origin)
        doctors = [await patiently(guarded, "doctor", PUBNUB_ORIGIN=origin) for _ in range(4)]
        await wait_until(lambda: server.requests_count > 5, what=lambda: worker.err)
        await worker.stopped()
        assert all("PubNub" in child.out for child in doctors)
    finally:
        listener.close()
        await server.shutdown(1)
    expect_silence(guarded)
