"""``tally doctor`` tries what a worker needs, whatever hangs, and leaves nothing behind."""

import asyncio
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, cast

import pytest

from tests.redis_server import RedisServer, free_port
from tests.worlds import World, open_world
from worker.errors import ExitCode

PATIENCE_SECONDS: Final = 10


@pytest.fixture
async def world(valkey: RedisServer, real_redis: Any, tmp_path: Path) -> AsyncIterator[World]:
    """A world on an empty Redis."""
    async with open_world(valkey.url, tmp_path) as world:
        yield world


@asynccontextmanager
async def silent_port() -> AsyncIterator[int]:
    """Yield a port that takes connections, and never answers."""
    ends = asyncio.Event()

    async def wait(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await ends.wait()
        writer.close()

    server = await asyncio.start_server(wait, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        ends.set()
        server.close()


async def test_doctor_ends_soon_whatever_hangs(world: World) -> None:
    """PubNub and Redis take connections, and answer nothing."""
    async with silent_port() as port:
        began = time.monotonic()
        ended = await world.run_command(
            "doctor", PUBNUB_ORIGIN=f"127.0.0.1:{port}", REDIS_URL=f"redis://127.0.0.1:{port}"
        )
        seconds = time.monotonic() - began

    assert seconds < PATIENCE_SECONDS
    assert ended.code == ExitCode.PUBNUB_REFUSED
    assert "BAD  PubNub: no answer in 6 s" in ended.out
    assert "BAD  Redis: Redis does not answer in 4 s." in ended.out


async def test_doctor_ends_soon_if_only_writes_hang(world: World) -> None:
    """As while a failover is under way."""
    async with world.hanging_redis():
        ended = await world.run_command("doctor")

    assert ended.code == ExitCode.REDIS_UNFIT
    assert re.search(r"^ok   Redis: answers, (Valkey|Redis) \d", ended.out, re.MULTILINE)
    assert "BAD  Redis: Redis takes no writes now: it answers INFO" in ended.out


@pytest.mark.processes
async def test_doctor_leaves_no_folder_behind(world: World) -> None:
    """Without REDIS_URL it says what a worker would use, and tries it elsewhere."""
    before = set(world.folder.iterdir())

    ended = await world.run_command("doctor", REDIS_URL=None)

    assert ended.code == ExitCode.DONE, ended
    assert "ok   Redis: REDIS_URL is not set: the worker uses its own embedded Valkey" in ended.out
    assert f"with its data in {world.folder / '.tally'}." in ended.out
    assert "ok   Redis: namespace 'tally' is free" in ended.out
    assert set(world.folder.iterdir()) == before


@pytest.mark.processes
async def test_doctor_looks_into_the_folder_that_is_there(world: World) -> None:
    """The namespace there is another keyset's."""
    claimed = await world.run_command("backfill", REDIS_URL=None)

    ended = await world.run_command("doctor", REDIS_URL=None, PUBNUB_SUBSCRIBE_KEY="sub-c-other")

    assert claimed.code == ExitCode.DONE, claimed
    assert ended.code == ExitCode.PUBNUB_REFUSED
    assert "BAD  Redis: The namespace tally holds the tallies of another keyset" in ended.out


@pytest.mark.processes
@pytest.mark.parametrize("command", ["run", "doctor"])
@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ({"maxmemory": "1"}, "Redis is full and takes no writes"),
        ({"min-replicas-to-write": "1"}, "Redis takes no writes now: it has too few replicas"),
    ],
    ids=str,
)
async def test_a_redis_that_takes_no_writes_is_refused(
    world: World, command: str, setting: dict[str, str], sentence: str
) -> None:
    """Before a worker claims the namespace. The doctor says the same."""
    redis = cast("Any", world.redis)
    await configure(redis, setting)
    try:
        ended = await world.do(command)
    finally:
        await configure(redis, dict.fromkeys(setting, "0"))

    assert ended.process.returncode == ExitCode.REDIS_UNFIT
    assert sentence in ended.out + ended.err
    assert await redis.dbsize() == 0


async def configure(redis: Any, setting: dict[str, str]) -> None:
    """Change how Redis is set."""
    for name, value in setting.items():
        await redis.config_set(name, value)


@pytest.mark.processes
@pytest.mark.parametrize("command", ["run", "doctor"])
async def test_a_replica_is_refused(world: World, command: str) -> None:
    """With the address of its primary."""
    redis = cast("Any", world.redis)
    port = free_port()
    await redis.execute_command("REPLICAOF", "127.0.0.1", port)
    try:
        ended = await world.do(command)
    finally:
        await redis.execute_command("REPLICAOF", "NO", "ONE")

    assert ended.process.returncode == ExitCode.REDIS_UNFIT
    assert f"INFO says 127.0.0.1:{port}." in ended.out + ended.err


@pytest.mark.parametrize("command", ["run", "doctor"])
@pytest.mark.parametrize("url", ["redis://localhost/1/2", "redis://localhost/cache"])
async def test_a_database_that_is_no_number_is_refused(
    world: World, command: str, url: str
) -> None:
    """It is a setting that is wrong: nothing is asked."""
    ended = await world.run_command(command, REDIS_URL=url)

    assert ended.code == ExitCode.USAGE
    assert "a path that is no number of a database" in ended.out + ended.err


async def test_a_doctor_survives_a_wrong_namespace(world: World) -> None:
    """It says so twice, and examines PubNub only if the configuration is complete."""
    ended = await world.run_command("doctor", TALLY_NAMESPACE="a b")

    assert ended.code == ExitCode.USAGE
    assert "BAD  Configuration: TALLY_NAMESPACE is 'a b'" in ended.out
    assert "BAD  Redis: not examined: TALLY_NAMESPACE is wrong." in ended.out


@pytest.mark.processes
async def test_doctor_tries_the_address_of_the_pages(world: World) -> None:
    """Another program listens there: a worker would end with 2."""
    async with silent_port() as port:
        ended = await world.run_command("doctor", TALLY_HTTP=str(port))

    assert ended.code == ExitCode.USAGE
    assert f"BAD  TALLY_HTTP: cannot listen at 127.0.0.1:{port}: " in ended.out


async def test_doctor_knows_a_worker_that_runs_already(world: World) -> None:
    """It has the address. That is no failure."""
    async with world.run_worker() as worker:
        (entry,) = worker.entries("http_listens")
        ended = await world.run_command("doctor", TALLY_HTTP=str(entry["port"]))

    assert ended.code == ExitCode.DONE, ended
    assert "is in use: by a worker that runs already" in ended.out


async def test_doctor_names_unknown_settings(world: World) -> None:
    """They are no failure, but not simply ok."""
    ended = await world.run_command("doctor", TALLY_CHANELS="room", REDIS_HOST="localhost")

    assert ended.code == ExitCode.DONE, ended
    sentence = "TALLY_CHANELS (environment) is no setting; is TALLY_CHANNELS meant?"
    assert f"note Configuration: {sentence}" in ended.out
    assert "REDIS_HOST" not in ended.out  # REDIS_URL is set, so it is another program's


@pytest.mark.processes
@pytest.mark.parametrize("name", ["REDISURL", "REDIS_URI", "REDIS_HOST", "TALLY_REDIS_URL"])
async def test_doctor_asks_whether_redis_url_was_meant(world: World, name: str) -> None:
    """Another name of it is set, so nobody meant an embedded Valkey."""
    ended = await world.run_command("doctor", REDIS_URL=None, **{name: "redis://localhost"})

    assert ended.code == ExitCode.DONE, ended
    assert "note Redis: REDIS_URL is not set" in ended.out
    assert f"{name} (environment) is no setting; is REDIS_URL meant?" in ended.out
