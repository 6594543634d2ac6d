"""What listens at the address? The answer explains a connection that fails."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

from redis import exceptions
from redis.asyncio import Redis

from reaction_tally.addresses import Host, Kind
from worker.errors import RedisUnavailableError
from worker.store.cluster_errors import NoPrimaryError, origin_of
from worker.store.connector import Connector, connector_of
from worker.store.tls_failures import CLOSED, OTHER_HOSTS, explain_tls

TRY_SECONDS: Final = 1.0
"""How long an explanation may take, lookups of names included."""
_LONGEST_REPLY: Final = 64
_NAMES: Final = 5
"""An error quotes that many names of a certificate."""
_NO_ANSWER: Final = (
    exceptions.ConnectionError,
    exceptions.TimeoutError,
    exceptions.InvalidResponse,
    NoPrimaryError,
    TimeoutError,
)
"""Other subclasses are answers, such as one about a wrong password."""
_ALL_OR_NONE: Final = " Sentinels and Redis must both speak TLS, or neither."


@asynccontextmanager
async def explained(redis: Redis) -> AsyncIterator[None]:
    """Say in the error of a Redis that does not answer what to change in REDIS_URL.

    Raises:
        RedisUnavailableError: what was raised, or what is known to be wrong.
    """
    try:
        yield
    except RedisUnavailableError as error:
        origin = origin_of(error.__cause__)
        if type(origin) not in _NO_ANSWER:
            raise
        explanation = await _explain_failure(redis)
        if not explanation:
            raise
        raise RedisUnavailableError(explanation) from error


async def _explain_failure(redis: Redis) -> str:
    """Return what to change in REDIS_URL; an empty text if nothing is known."""
    connector = connector_of(redis)
    explanations = [_explain_host(connector, *host) for host in _hosts_of(redis)]
    found = await asyncio.gather(*explanations)
    return next(filter(None, found), "")


def _hosts_of(redis: Redis) -> Sequence[Host]:
    """Return the hosts of the address, and the primary that Sentinels named last."""
    connector = connector_of(redis)
    if connector.kind is not Kind.SENTINEL:
        return connector.hosts
    pool: Any = redis.connection_pool
    named = pool.master_address
    return [
        *connector.hosts,
        *([named] if named else []),
    ]


async def _explain_host(connector: Connector, host: str, port: int) -> str:
    # Only the event loop looks up names: a thread of a pool would keep the process.
    try:
        async with asyncio.timeout(TRY_SECONDS):
            if not connector.has_tls:
                return await _explain_plain(connector, host, port)
            return await _explain_tls(connector, host, port)
    except (OSError, TimeoutError, UnicodeError):
        return ""


async def _explain_plain(connector: Connector, host: str, port: int) -> str:
    # Nothing is sent: whose certificate it is does not matter.
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    _, writer = await asyncio.open_connection(host, port, ssl=context)
    writer.close()
    needed = connector.scheme.replace("redis", "rediss")
    return _other_scheme(connector, f"{host}:{port} speaks TLS", needed)


async def _explain_tls(connector: Connector, host: str, port: int) -> str:
    if await _speaks_plain_text(host, port):
        needed = connector.scheme.replace("rediss", "redis")
        return _other_scheme(connector, f"{host}:{port} speaks no TLS", needed)
    problem = await _problem_of_tls(host, port, connector.tls_context())
    return f"Redis at {host}:{port} does not answer: {problem}"


def _other_scheme(connector: Connector, problem: str, needed: str) -> str:
    ending = _ALL_OR_NONE if connector.kind is Kind.SENTINEL else ""
    return f"{problem}: REDIS_URL begins with {connector.scheme}://, write {needed}://.{ending}"


async def _speaks_plain_text(host: str, port: int) -> bool:
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(b"PING\r\n")
        reply = await reader.read(_LONGEST_REPLY)
    except OSError:
        return False
    finally:
        writer.close()
    return reply.startswith((b"+", b"-"))


async def _problem_of_tls(
    host: str,
    port: int,
    context: ssl.SSLContext,
) -> str:
    try:
        await _wait_for_end(host, port, context)
    except ssl.SSLCertVerificationError as error:
        problem = explain_tls(error)
        if error.verify_code not in OTHER_HOSTS:
            return problem
        names = await _names_of_certificate(host, port, context)
        return f"{problem} It has: {names}."
    except ssl.SSLError as error:
        return explain_tls(error)
    return CLOSED


async def _wait_for_end(
    host: str,
    port: int,
    context: ssl.SSLContext,
) -> None:
    """Send nothing: a server refuses a client after the handshake, and its reason may get lost.

    Raises:
        SSLError: the reason.
        TimeoutError: the server waits for a command.
    """
    reader, writer = await asyncio.open_connection(
        host,
        port,
        ssl=context,
    )
    try:
        await reader.read(_LONGEST_REPLY)
    finally:
        writer.close()


async def _names_of_certificate(
    host: str,
    port: int,
    context: ssl.SSLContext,
) -> str:
    context.check_hostname = False
    _, writer = await asyncio.open_connection(
        host,
        port,
        ssl=context,
    )
    certificate = writer.get_extra_info("peercert")
    writer.close()
    names = certificate.get("subjectAltName", ())
    shown = names[:_NAMES]
    return ", ".join(name for _, name in shown)
