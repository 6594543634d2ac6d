"""No command writes a secret or a payload, whatever fails and however loud the log is."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import pytest
from aiohttp import web
from redis.asyncio import Redis

from tests.bench.canaries import (
    CANARY,
    KEYS,
    MESSAGE,
    PAYLOAD,
    ROOM,
    expect_no_word,
    expect_no_word_on,
    give,
    guard,
    poison,
    redis_url,
    write_nonsense,
    write_payloads,
)
from tests.bench.in_process import Commands
from tests.redis_server import RedisServer
from tests.waiting import wait_until
from worker.cli.commands import app
from worker.emulator import OUTAGE_KINDS, Emulator
from worker.service.configured import followed_names
from worker.service.parts import open_parts
from worker.service.worker import compose
from worker.settings import SECRETS, Settings
from worker.store.tables import KnownChannels
from worker.web.pages import health_page
from worker.web.server import listening

END_TO_END: Final = Path(__file__).parents[1] / "end_to_end"
VARIANTS: Final = [
    ("debug", "console", "files"),
    ("error", "json", ".env"),
    ("debug", "json", "environment"),
]
"""The level and form of logs, and the way to give secrets."""


@dataclass(frozen=True)
class Guarded:
    """Commands with every secret, on a PubNub and a Redis that demand them."""

    emulator: Emulator
    redis: Any
    url: str
    commands: Commands
    form: str

    def expect_secrecy(self) -> None:
        """Expect no secret and no payload in what a command wrote."""
        assert self.commands.ended
        for ended in self.commands.ended:
            expect_no_word(ended.line[0], ended, form=self.form)


@asynccontextmanager
async def guarded_by(
    emulator: Emulator,
    redis: Redis,
    valkey: RedisServer,
    folder: Path,
    variant: tuple[str, str, str],
) -> AsyncIterator[Guarded]:
    """Let PubNub demand the token, and Redis the password."""
    level, form, way = variant
    settings = {
        "PUBNUB_ORIGIN": emulator.origin,
        "PUBNUB_TLS": "false",
        "TALLY_CHANNELS": ROOM,
        "TALLY_HISTORY_RATE": "1000",
        "TALLY_HTTP": "off",
        "TALLY_LOG_FORMAT": form,
        "TALLY_LOG_LEVEL": level,
    }
    settings |= give(way, folder, {**KEYS, "REDIS_URL": redis_url(valkey.url)})
    emulator.state.demand_token(KEYS["PUBNUB_AUTH_TOKEN"])
    await guard(redis)
    try:
        yield Guarded(emulator, redis, valkey.url, Commands(folder, settings), form)
    finally:
        await redis.acl_deluser("worker")


@pytest.fixture(params=VARIANTS, ids="-".join)
async def guarded(
    request: pytest.FixtureRequest,
    emulator: Emulator,
    real_redis: Redis,
    valkey: RedisServer,
    tmp_path: Path,
) -> AsyncIterator[Guarded]:
    """Yield guarded commands, for each way to give secrets and to log."""
    async with guarded_by(emulator, real_redis, valkey, tmp_path, request.param) as guarded:
        yield guarded


@pytest.fixture
async def loud(
    emulator: Emulator, real_redis: Redis, valkey: RedisServer, tmp_path: Path
) -> AsyncIterator[Guarded]:
    """Let everything be logged."""
    async with guarded_by(emulator, real_redis, valkey, tmp_path, VARIANTS[-1]) as guarded:
        yield guarded


READING: Final = {"show", "explain", "top", "channels", "tail"}
"""Commands that ask nobody but Redis."""


# --- each command --------------------------------------------------------------------------------


async def try_in_trouble(guarded: Guarded, *line: str) -> None:
    """Run a command normally, then in trouble of every kind."""
    do, state = guarded.commands.do, guarded.emulator.state
    only_reads = line[0] in READING
    asks_nobody = line[0] == "forget"
    struck = 0 if only_reads or asks_nobody else 1 if line[0] == "verify" else 3
    write_payloads(state)
    assert (await do("backfill")).code == 0
    if line[0] == "verify":
        guarded.commands.settings["TALLY_SETTLE_SECONDS"] = (
            "0.1"  # so long it waits between its looks
        )
    state.add(ROOM, MESSAGE, f"type-{PAYLOAD}", f"other-{PAYLOAD}", f"uuid-{PAYLOAD}")
    state.advance(1000)
    assert (await do(*line)).code == (5 if line[0] == "verify" else 0)

    nowhere: dict[str, str | None] = {
        "REDIS_URL_FILE": None,
        "REDIS_URL": f"redis://:{CANARY}@127.0.0.1:1",
    }
    locked: dict[str, str | None] = {
        **nowhere,
        "REDIS_URL": redis_url(guarded.url, f"{CANARY}-wrong"),
    }
    assert [(await do(*line, **settings)).code for settings in (nowhere, locked)] == [4, 4]

    another: dict[str, str | None] = {
        "PUBNUB_SUBSCRIBE_KEY_FILE": None,
        "PUBNUB_SUBSCRIBE_KEY": f"{CANARY}2",
    }
    assert (await do(*line, **another)).code == (0 if only_reads else 4)

    state.refuse([ROOM])
    assert (await do(*line)).code == struck
    state.refuse()
    for kind in OUTAGE_KINDS if not only_reads else ():
        if kind != "throttle":  # PubNub's own wish, a second each time; a refusal as any other
            state.set_outage(kind)
            assert (await do(*line)).code == struck
    state.set_outage(None)

    await write_nonsense(guarded.redis)
    ended = await do(*line)
    # A backfill names the damaged key, a reconcile mends it, a verify says what differs.
    clean = {
        "doctor": (0, False),
        "forget": (0, False),
        "backfill": (4, False),
        "reconcile": (0, False),
        "verify": (5, False),
        "channels": (0, False),
        "show": (1, False),
        "top": (1, False),
        "tail": (0, False),
    }
    assert (ended.code, "command_dies" in ended.err) == clean.get(line[0], (1, True))


async def try_config(guarded: Guarded) -> None:
    """Run ``tally config`` with right and wrong settings."""
    do = guarded.commands.do
    bad: dict[str, str | None] = {
        "PUBNUB_SECRET_KEY_FILE": None,
        "PUBNUB_SECRET_KEY": f"{CANARY} {CANARY}",
        "TALLY_NAMESPACE": "a b",
    }
    assert (await do("config")).code == 0
    assert (await do("config", "--json")).code == 0
    assert (await do("config", **bad, REDIS_URL_FILE=None, REDIS_URL=f"{CANARY}://x")).code == 2
    assert (await do("config", TALLY_TOKEN=CANARY, PUBNUB_AUTH_TOKN=CANARY)).code == 0


async def try_healthcheck(guarded: Guarded) -> None:
    """Run ``tally healthcheck`` without a worker, with a healthy one, and with a failing one."""
    do = guarded.commands.do
    assert (await do("healthcheck", TALLY_HTTP="127.0.0.1:1")).code == 1
    for reason in (None, "Redis refuses the credentials in REDIS_URL"):

        async def page(reason: str | None = reason) -> Any:
            return health_page({"redis": reason})

        async with listening("127.0.0.1", 0, {"/readyz": page}) as (host, port):
            ended = await do("healthcheck", TALLY_HTTP=f"{host}:{port}")
        assert (ended.code, ended.out) == ((1, f"redis: {reason}\n") if reason else (0, "ok\n"))


SCENARIOS: Final[dict[str, Callable[[Guarded], Awaitable[None]]]] = {
    "config": try_config,
    "healthcheck": try_healthcheck,
    "backfill": lambda guarded: try_in_trouble(guarded, "backfill"),
    "reconcile": lambda guarded: try_in_trouble(guarded, "reconcile", "--json"),
    "verify": lambda guarded: try_in_trouble(guarded, "verify"),
    "forget": lambda guarded: try_in_trouble(guarded, "forget", f"other-{ROOM}", "--yes"),
    "doctor": lambda guarded: try_in_trouble(guarded, "doctor"),
    "show": lambda guarded: try_in_trouble(guarded, "show", ROOM, MESSAGE),
    "explain": lambda guarded: try_in_trouble(guarded, "explain", ROOM, MESSAGE),
    "top": lambda guarded: try_in_trouble(guarded, "top", ROOM),
    "channels": lambda guarded: try_in_trouble(guarded, "channels"),
    "tail": lambda guarded: try_in_trouble(guarded, "tail", "--exit-at-end"),
}
AS_PROCESSES: Final = {
    "run": ("test_secrets.py", "test_a_worker_in_trouble_keeps_its_secrets"),
    "board": ("test_secrets.py", "test_a_board_keeps_its_secrets"),
    "emulator": ("test_secrets.py", "test_an_emulator_keeps_its_secrets"),
    "demo": ("test_demo.py", "test_it_ends_equal_to_the_truth"),
}
"""Commands that run until a signal, or start processes, and the file that tries them."""


COMMANDS: Final = [
    command.name or getattr(command.callback, "__name__", "") for command in app.registered_commands
]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_a_scenario(command: str) -> None:
    """A new command without one fails here."""
    if command not in SCENARIOS:
        assert command in AS_PROCESSES, f"add a scenario for tally {command}"
        module, test = AS_PROCESSES[command]
        assert f"def {test}(" in (END_TO_END / module).read_text(encoding="utf-8")


@pytest.mark.parametrize("command", SCENARIOS)
async def test_no_command_writes_secrets_or_payloads(guarded: Guarded, command: str) -> None:
    """Each level, form and way to give secrets is tried."""
    await SCENARIOS[command](guarded)
    guarded.expect_secrecy()


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
async def test_a_malformed_secret_is_not_shown(loud: Guarded, name: str, secret: str) -> None:
    """It is refused with 2, by the name of its setting."""
    ended = await loud.commands.do("run", **{name: secret})

    assert ended.code == 2
    assert name in ended.err
    loud.expect_secrecy()


async def test_a_foreign_key_is_shown_in_part(loud: Guarded) -> None:
    """Its beginning and end are shown; of a short key the length and a digest."""
    ours, theirs = (f"sub-c-{digit * 8}-{CANARY}-{CANARY}-{digit * 12}" for digit in "12")
    assert (await loud.commands.do("backfill", PUBNUB_SUBSCRIBE_KEY=theirs)).code == 0
    ended = await loud.commands.do("backfill", PUBNUB_SUBSCRIBE_KEY=ours)
    short = await loud.commands.do("backfill", PUBNUB_SUBSCRIBE_KEY=f"{CANARY}-{CANARY}")

    assert (ended.code, short.code) == (4, 4)
    assert "(sub-c-222…2222, not sub-c-111…1111)" in ended.err
    assert "(sub-c-222…2222, not a key of 13 characters whose SHA-256 begins " in short.err
    loud.expect_secrecy()


async def test_a_crash_is_logged_without_payloads(
    loud: Guarded, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log has the traceback, and nothing from Redis."""

    async def read_nonsense(_: object) -> None:
        int(PAYLOAD)

    monkeypatch.setattr(KnownChannels, "all", read_nonsense)
    async with loud.commands.worker(TALLY_HTTP="127.0.0.1:0") as worker:
        await wait_until(worker.work.done)

    # It may have died between a key and its life.
    await loud.redis.delete("tally:subscriptions")
    assert worker.work.result() == 1
    (entry,) = worker.entries("worker_dies")
    assert entry["exit_code"] == 1
    assert worker.entries("worker_stops") == []  # the last entry says why
    assert entry["exception"].startswith("Traceback (most recent call last)")
    loud.expect_secrecy()


async def test_pages_hide_foreign_content(loud: Guarded) -> None:
    """Another program has written under our names. The pages answer all the same."""
    settings = Settings.model_validate(loud.commands.settings)
    async with open_parts(settings) as parts:
        worker = await compose(parts, followed_names(settings))
        await parts.tables.channels.add([ROOM])
        await write_nonsense(loud.redis)
        pages = {path: await answer() for path, answer in worker.health.pages.items()}

    assert b'"owed_channels": 1' in pages["/status"].body
    expect_no_word_on(page.body.decode() for page in pages.values())


# --- what PubNub repeats -------------------------------------------------------------------------

GIVEN: Final = tuple(secret for name, secret in KEYS.items() if name.startswith("PUBNUB_"))
ECHOES: Final[dict[str, Callable[[web.BaseRequest], str]]] = {
    "the address": lambda request: f"Bad request {request.raw_path}",
    "the address, decoded": lambda request: f"Bad request {request.path_qs}",
    "its parts": lambda request: (
        f"Bad key '{request.query.get('auth')}', '{request.query.get('signature')}'."
    ),
    "all secrets": lambda _: " ".join(GIVEN),
    "all secrets, encoded": lambda _: " ".join(quote(secret, safe="") for secret in GIVEN),
    "all secrets, within words": lambda _: " ".join(f"x{secret}y" for secret in GIVEN),
}


@pytest.mark.parametrize("repeated", ECHOES)
@pytest.mark.parametrize("status", [400, 403, 500])
async def test_an_echoed_request_is_not_written(loud: Guarded, status: int, repeated: str) -> None:
    """PubNub's error repeats the request with its secrets, in any spelling."""
    polls: list[web.BaseRequest] = []

    async def echo(request: web.BaseRequest) -> web.Response:
        if request.path.startswith("/v2/subscribe/"):
            polls.append(request)
        words = ECHOES[repeated](request)
        return web.json_response({"status": status, "error": True, "message": words}, status=status)

    server = web.Server(echo)
    listener = await asyncio.get_running_loop().create_server(server, "127.0.0.1", 0)
    origin = {"PUBNUB_ORIGIN": f"127.0.0.1:{listener.sockets[0].getsockname()[1]}"}
    try:
        doctor = await loud.commands.do("doctor", **origin)
        async with loud.commands.worker(**origin) as worker:
            await wait_until(lambda: '"event": "pubnub_' in worker.err or worker.work.done())
    finally:
        listener.close()
        await server.shutdown(1)
    assert f"PubNub, time: answered {status}" in doctor.out
    assert f"answered {status}" in worker.err
    assert polls
    assert all({"auth", "signature"} <= poll.query.keys() for poll in polls)
    loud.expect_secrecy()


# --- the check itself ----------------------------------------------------------------------------


@pytest.mark.parametrize("word", [CANARY, PAYLOAD])
@pytest.mark.parametrize(
    "place", ["a value that is printed", "a sentence that quotes", "an entry of the log"]
)
async def test_the_check_finds_a_written_word(loud: Guarded, word: str, place: str) -> None:
    """The word stands in something that is no secret and is printed."""
    do = loud.commands.do
    match place:
        case "a value that is printed":
            ended = await do("config", PUBNUB_USER_ID=word)
            assert word in ended.out
        case "a sentence that quotes":
            ended = await do("backfill", f"{word}:")
            assert word in ended.err
        case _:
            ended = await do("backfill", word)
            assert f'"channel": "{word}"' in ended.err

    with pytest.raises(AssertionError):
        loud.expect_secrecy()


def test_all_secrets_are_tried() -> None:
    """A new secret must be added here, too."""
    assert {*KEYS, "REDIS_URL"} == set(SECRETS)
    assert all(CANARY in secret for secret in (*KEYS.values(), redis_url("redis://host")))
    assert PAYLOAD in str(poison())
