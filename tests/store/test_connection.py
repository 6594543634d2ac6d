"""Clients of Redis: over TCP, TLS, a Unix socket, of the embedded server; and their errors."""

import asyncio
from pathlib import Path

import pytest
import trustme
from redis import exceptions

from reaction_tally.keys import Keys
from tests.redis_server import RedisServer
from tests.source.tls_server import tls_context, tls_in_front_of
from tests.unclaimed import UnclaimedReader
from worker.errors import RedisUnavailableError, ScriptRefusedError
from worker.store import connection
from worker.store.connection import connect, opened_redis, recovery_client
from worker.store.redis_errors import redis_errors
from worker.store.tables import Tables


async def test_as_many_commands_run_at_once_as_subscriptions_start(valkey: RedisServer) -> None:
    """Each needs a connection of its own, and none is refused."""
    async with connect(valkey.url) as redis, recovery_client(redis) as recovery:
        for client in (redis, recovery):
            answers = await asyncio.gather(*[client.ping() for _ in range(400)])
            assert answers == [True] * 400


async def test_tls_works_and_is_verified(valkey: RedisServer, tmp_path: Path) -> None:
    """The address is ``rediss://``. If the authority is unknown, nothing is sent."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    context = tls_context(authority, "127.0.0.1")
    async with tls_in_front_of(valkey.url, context) as port:
        url = f"rediss://127.0.0.1:{port}/0"
        async with connect(f"{url}?ssl_ca_certs={tmp_path}/ca.pem") as verified:
            await verified.set("tally:meta", "there")
            assert await verified.getdel("tally:meta") == "there"

        async with connect(url) as unverified:
            with pytest.raises(RedisUnavailableError, match="not trusted here"), redis_errors():
                await unverified.get("tally:meta")


async def test_a_silent_server_is_asked_once() -> None:
    """The address says how long an answer may take. Another try would take as long again."""
    connections: list[asyncio.StreamWriter] = []

    async def keep_silent(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(writer)

    async with await asyncio.start_server(keep_silent, "127.0.0.1", 0) as server:
        _, port = server.sockets[0].getsockname()
        async with connect(f"redis://127.0.0.1:{port}?socket_timeout=0.05") as redis:
            with pytest.raises(exceptions.TimeoutError):
                await redis.get("tally:meta")
        for writer in connections:
            writer.close()

    assert len(connections) == 1


async def test_no_cancellation_is_lost(valkey: RedisServer) -> None:
    """redis-py swallows some on Python 3.11. A task must be cancelled at any step."""
    async with connect(valkey.url) as redis:
        tables, reader = Tables(redis, Keys()), UnclaimedReader(redis)

        async def loop() -> None:
            while True:
                await tables.channels.all()
                await tables.channels.add(["room"])
                await reader.get_many("room", [1, 2])

        for steps in range(60):
            task = asyncio.create_task(loop())
            for _ in range(steps):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task], timeout=30)
            assert task.cancelled(), f"lost after {steps} steps"


@pytest.mark.processes
async def test_without_an_address_the_embedded_server_is_opened(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It is reached by a Unix socket. A value that was written is there the next time."""
    monkeypatch.setattr(connection, "EMBEDDED_FOLDER", tmp_path / "data")
    for expected in (None, "kept"):
        async with opened_redis(None) as redis:
            assert await redis.get("tally:meta") == expected
            await redis.set("tally:meta", "kept")


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (exceptions.ConnectionError("refused"), RedisUnavailableError),
        (exceptions.TimeoutError("slow"), RedisUnavailableError),
        (exceptions.BusyLoadingError("loading"), RedisUnavailableError),
        (exceptions.ReadOnlyError("a replica now"), RedisUnavailableError),
        (exceptions.OutOfMemoryError("no room"), RedisUnavailableError),
        (exceptions.AuthenticationError("wrong password"), RedisUnavailableError),
        (exceptions.NoPermissionError("not you"), RedisUnavailableError),
        (exceptions.ResponseError("MISCONF no disk"), RedisUnavailableError),
        (
            exceptions.ResponseError("ERR script: @user_script: -OOM command not allowed"),
            RedisUnavailableError,
        ),
        (exceptions.RedisError("something"), RedisUnavailableError),
        (OSError("no route"), RedisUnavailableError),
        (exceptions.ResponseError("WRONGTYPE"), ScriptRefusedError),
        (exceptions.DataError("not text"), ScriptRefusedError),
        (UnicodeEncodeError("utf-8", "\ud83d", 0, 1, "surrogates not allowed"), ScriptRefusedError),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else str(value),
)
async def test_an_error_is_temporary_or_final(error: Exception, expected: type[Exception]) -> None:
    """A temporary error is retried. An error caused by the arguments is not."""
    with pytest.raises(expected), redis_errors():
        raise error


async def test_the_command_of_a_pipeline_is_left_out() -> None:
    """redis-py quotes it before the error. It may hold any text, even one like an error code."""
    quoted = (
        "Command # 2 (EVALSHA OOM ) of pipeline\nLOADING canary) "
        "of pipeline caused error: WRONGTYPE no hash"
    )
    with (
        pytest.raises(ScriptRefusedError, match=r"^Redis refused a command: WRONGTYPE no hash$"),
        redis_errors(),
    ):
        raise exceptions.ResponseError(quoted)
