"""A worker refuses a Redis on which counts could not stay exact."""

import asyncio
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import pytest
import trustme

from reaction_tally.keys import Keys
from tests.configured_server import ConfiguredServer, programs
from tests.redis_server import RedisServer, free_port, server_program
from tests.source.tls_server import tls_context, tls_in_front_of
from worker.errors import ExitCode, RedisUnavailableError, RedisUnfitError, TallyError
from worker.store.connection import connect
from worker.store.preflight import (
    check_fitness,
    check_permissions,
    check_writes,
    lacks_publish,
)
from worker.store.rollback_detector import RollbackDetector

KEYS: Final = Keys()


@pytest.fixture
async def changed(real_redis: Any) -> AsyncIterator[Any]:
    """Yield the real Redis; its configuration is put back afterwards."""
    names = ("maxmemory", "maxmemory-policy", "min-replicas-to-write")
    before = await real_redis.config_get(*names)
    yield real_redis
    await real_redis.config_set(*[word for pair in before.items() for word in pair])


async def refused(url: str) -> TallyError:
    """Return the error of a Redis that is unfit."""
    async with connect(url) as redis:
        with pytest.raises((RedisUnavailableError, RedisUnfitError)) as raised:
            await check_fitness(redis)
    return raised.value


async def test_a_redis_that_evicts_is_refused(changed: Any) -> None:
    """``--allow-eviction`` accepts it."""
    await changed.config_set("maxmemory-policy", "allkeys-lru")

    with pytest.raises(RedisUnfitError, match=r"allkeys-lru.*--allow-eviction"):
        await check_fitness(changed)
    accepted = await check_fitness(changed, allow_eviction=True)
    assert accepted.policy == "allkeys-lru"


async def test_a_full_redis_is_refused_with_figures(changed: Any) -> None:
    """Both by what INFO says, and by a write that would write nothing."""
    await changed.config_set("maxmemory", 1)

    with pytest.raises(RedisUnfitError, match=r"is full .* of 1 bytes \(maxmemory\) in use"):
        await check_fitness(changed)
    with pytest.raises(RedisUnavailableError, match=r"no writes now: it is full.*\(OOM"):
        await check_writes(changed, KEYS)
    assert (await check_fitness(changed, only_reads=True)).is_full


async def test_a_redis_with_too_few_replicas_takes_no_writes(changed: Any) -> None:
    """Until they are there."""
    await changed.config_set("min-replicas-to-write", 1)

    with pytest.raises(RedisUnavailableError, match="too few replicas"):
        await check_permissions(changed, KEYS)
    await changed.config_set("min-replicas-to-write", 0)
    await check_permissions(changed, KEYS)
    assert await changed.dbsize() == 0


async def test_replicas_that_are_waited_for_must_be_there(real_redis: Any) -> None:
    """Or no cursor would ever be saved, though each write is taken."""
    reason = r"0 of 1 replicas \(TALLY_WAIT_REPLICAS\) had a write .* or lower TALLY_WAIT_REPLICAS"
    with pytest.raises(RedisUnavailableError, match=reason):
        await check_permissions(real_redis, KEYS, 1)
    assert await real_redis.dbsize() == 0


@pytest.mark.processes
async def test_a_replica_is_refused_with_its_primary(valkey: RedisServer) -> None:
    """A worker writes to the primary. A command that only reads may read a replica."""
    with ConfiguredServer(server_program(), replicaof=f"127.0.0.1 {valkey.port}") as replica:
        error = await refused(replica.url)
        async with connect(replica.url) as redis:
            await check_fitness(redis, only_reads=True)
            with pytest.raises(RedisUnavailableError, match=r"it is a replica \(READONLY"):
                await check_writes(redis, KEYS)

    assert isinstance(error, RedisUnfitError)
    assert f"INFO says 127.0.0.1:{valkey.port}." in str(error)


@pytest.mark.processes
async def test_a_cluster_is_refused_as_a_cluster() -> None:
    """One of its nodes answers like a server."""
    bus = str(free_port())
    with ConfiguredServer(server_program(), cluster_enabled="yes", cluster_port=bus) as node:
        error = await refused(node.url)

    assert "a node of a Redis Cluster" in str(error)


@pytest.mark.processes
@pytest.mark.parametrize("make", programs())
async def test_a_sentinel_is_refused_as_a_sentinel(make: str, tmp_path: Path) -> None:
    """It answers INFO, and holds no data. Its name says that it is one."""
    program = tmp_path / f"{make.lower()}-sentinel"
    program.symlink_to(programs()[make])
    configuration = tmp_path / "sentinel.conf"
    configuration.touch()
    with ConfiguredServer(program, configuration) as sentinel:
        error = await refused(sentinel.url)

    assert "is a Sentinel, which holds no data" in str(error)


@pytest.mark.processes
async def test_a_server_without_info_is_refused(tmp_path: Path) -> None:
    """Some managed services rename or block it."""
    configuration = tmp_path / "valkey.conf"
    configuration.write_text('rename-command INFO ""\n')
    with ConfiguredServer(server_program(), configuration) as server:
        error = await refused(server.url)

    assert isinstance(error, RedisUnfitError)
    assert "The worker needs the command INFO" in str(error)


async def test_a_database_that_is_not_there_is_named(valkey: RedisServer) -> None:
    """Only the server knows how many it has."""
    error = await refused(f"{valkey.url}/99")

    assert isinstance(error, RedisUnfitError)
    assert "has no database of the number in REDIS_URL" in str(error)


async def test_wrong_credentials_are_no_missing_permission(valkey: RedisServer) -> None:
    """WRONGPASS: correct the address. NOPERM, in ``test_permissions.py``: grant something."""
    error = await refused(valkey.url.replace("redis://", "redis://nobody:secret@"))

    assert "refuses the credentials in REDIS_URL" in str(error)
    assert "Correct the user and the password" in str(error)
    assert "secret" not in str(error)


@pytest.mark.processes
async def test_a_missing_password_is_no_wrong_one() -> None:
    """Redis says in many words that HELLO came too early."""
    with RedisServer() as server:
        async with connect(server.url) as admin:
            await admin.config_set("requirepass", "secret")
        missing = await refused(server.url)
        wrong = await refused(server.url.replace("redis://", "redis://:other@"))

    assert str(missing).startswith("Redis wants a password, and REDIS_URL has none.")
    assert "refuses the credentials" in str(wrong)


@pytest.mark.processes
async def test_a_worker_says_so_too_when_a_password_is_missing() -> None:
    """Its connections have a detector. A failed health check once came back to it without end."""
    with RedisServer() as server:
        async with connect(server.url) as admin:
            await admin.config_set("requirepass", "secret")
        async with connect(server.url, RollbackDetector()) as redis:
            with pytest.raises(RedisUnavailableError, match="wants a password"):
                await check_fitness(redis)


async def test_to_ask_for_the_right_to_publish_publishes_nothing(real_redis: Any) -> None:
    """A program that follows hints gets the next one first."""
    async with real_redis.pubsub() as subscription:
        await subscription.subscribe(KEYS.hints)
        assert await lacks_publish(real_redis, KEYS) == ""
        await real_redis.publish(KEYS.hints, "the next one")
        kinds = [await subscription.get_message(timeout=30) for _ in range(2)]

    assert [message["data"] for message in kinds] == [1, "the next one"]


@pytest.mark.parametrize("greeting", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"<!DOCTYPE HTML>"])
async def test_a_web_server_is_no_redis(greeting: bytes) -> None:
    """It answers what no Redis would, and the sentence says what it looks like."""
    async with answering(greeting) as port:
        error = await refused(f"redis://127.0.0.1:{port}")

    assert "What answers there is no Redis (it looks like HTTP)" in str(error)
    assert "Check the host and the port in REDIS_URL." in str(error)
    assert error.exit_code == ExitCode.REDIS_UNFIT


@asynccontextmanager
async def answering(greeting: bytes) -> AsyncIterator[int]:
    """Yield the port of a server that says this to everybody."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(greeting)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def test_an_unknown_authority_is_explained(valkey: RedisServer) -> None:
    """With both places that can name it."""
    context = tls_context(trustme.CA(), "127.0.0.1")
    async with tls_in_front_of(valkey.url, context) as port:
        error = await refused(f"rediss://127.0.0.1:{port}")

    assert "an authority that is not trusted here" in str(error)
    assert "ssl_ca_certs=" in str(error)
    assert "SSL_CERT_FILE" in str(error)
    assert "Is it running" not in str(error)


async def test_a_certificate_of_another_host_is_named(valkey: RedisServer, tmp_path: Path) -> None:
    """With the names that it has."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    context = tls_context(authority, "redis.invalid")
    async with tls_in_front_of(valkey.url, context) as port:
        error = await refused(f"rediss://127.0.0.1:{port}?ssl_ca_certs={tmp_path}/ca.pem")

    assert f"Redis at 127.0.0.1:{port}" in str(error)
    assert "for another host name" in str(error)
    assert "It has: redis.invalid." in str(error)


def certifying(folder: Path) -> tuple[ssl.SSLContext, str]:
    """Return a server's TLS that wants a certificate, and options that trust the server."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED
    return context, f"?ssl_ca_certs={folder}/ca.pem"


@contextmanager
def handshakes(context: ssl.SSLContext) -> Iterator[int]:
    """Yield the port of a server that says why it refuses a handshake, as OpenSSL does.

    asyncio's servers close the connection without a reason.
    """
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                connection.settimeout(5)
                with connection, suppress(OSError):
                    context.wrap_socket(connection, server_side=True).close()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield listener.getsockname()[1]
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join(10)


async def test_a_server_that_wants_a_certificate_says_so(tmp_path: Path) -> None:
    """With the options that name one."""
    context, options = certifying(tmp_path)
    with handshakes(context) as port:
        error = await refused(f"rediss://127.0.0.1:{port}{options}")

    assert f"Redis at 127.0.0.1:{port} does not answer" in str(error)
    assert "it wants a certificate of the client" in str(error)
    assert "ssl_certfile=" in str(error)
    assert "ssl_keyfile=" in str(error)


async def test_a_certificate_that_the_server_refuses_is_explained(tmp_path: Path) -> None:
    """It is of a stranger: the server does not trust its authority."""
    context, options = certifying(tmp_path)
    stranger = trustme.CA().issue_cert("worker@tally.invalid")
    own = tmp_path / "own.pem"
    stranger.private_key_and_cert_chain_pem.write_to_path(own)
    options += f"&ssl_certfile={own}&ssl_keyfile={own}"
    with handshakes(context) as port:
        error = await refused(f"rediss://127.0.0.1:{port}{options}")

    assert "it refuses the certificate of this client" in str(error)
    assert "must trust the authority that signed it" in str(error)


async def test_a_server_that_closes_without_a_reason_is_explained(
    valkey: RedisServer, tmp_path: Path
) -> None:
    """It may want a certificate, and says nothing."""
    context, options = certifying(tmp_path)
    async with tls_in_front_of(valkey.url, context) as port:
        error = await refused(f"rediss://127.0.0.1:{port}{options}")

    assert "it closes the connection after the TLS handshake" in str(error)
    assert "ssl_certfile=" in str(error)


async def test_tls_to_a_plain_port_is_named(valkey: RedisServer) -> None:
    """And a plain address of a port that speaks TLS."""
    plain = await refused(valkey.url.replace("redis://", "rediss://"))
    context = tls_context(trustme.CA(), "127.0.0.1")
    async with tls_in_front_of(valkey.url, context) as port:
        encrypted = await refused(f"redis://127.0.0.1:{port}")

    assert f"127.0.0.1:{valkey.port} speaks no TLS" in str(plain)
    assert "write redis://" in str(plain)
    assert f"127.0.0.1:{port} speaks TLS" in str(encrypted)
    assert "write rediss://" in str(encrypted)
