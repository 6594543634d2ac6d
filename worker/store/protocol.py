"""What listens at the address? The answer explains a connection that fails."""

import asyncio
import ssl
from typing import Final

from redis.asyncio import Redis

from worker.store.connector import connector_of
from worker.store.tls_failures import CLOSED, OTHER_HOSTS, explain_tls

TRY_SECONDS: Final = 1.0
ALERT_SECONDS: Final = 1.0
"""How long a server may take to refuse a client after the handshake."""
_LONGEST_REPLY: Final = 64
_NAMES: Final = 5
"""An error quotes that many names of a certificate."""


async def explain_failure(redis: Redis) -> str:
    """Return what to change in REDIS_URL; an empty text if nothing is known."""
    connector = connector_of(redis)
    if not connector.hosts:
        return ""
    host, port = connector.hosts[0]
    given = connector.scheme
    begins = f"REDIS_URL begins with {given}://"
    if connector.has_tls:
        if await _speaks_plain_text(host, port):
            other = given.replace("rediss", "redis")
            return f"{host}:{port} speaks no TLS: {begins}, write {other}://."
        return await _explain_tls_failure(connector.tls_context(), host, port)
    if await _speaks_tls(host, port):
        other = given.replace("redis", "rediss")
        return f"{host}:{port} speaks TLS: {begins}, write {other}://."
    return ""


async def _explain_tls_failure(context: ssl.SSLContext, host: str, port: int) -> str:
    try:
        problem = await _problem_of_tls(host, port, context)
    except (OSError, TimeoutError):
        return ""
    return f"Redis at {host}:{port} does not answer: {problem}"


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
    async with asyncio.timeout(TRY_SECONDS):
        reader, writer = await asyncio.open_connection(
            host,
            port,
            ssl=context,
        )
    try:
        async with asyncio.timeout(ALERT_SECONDS):
            await reader.read(_LONGEST_REPLY)
    finally:
        writer.close()


async def _names_of_certificate(
    host: str,
    port: int,
    context: ssl.SSLContext,
) -> str:
    context.check_hostname = False
    async with asyncio.timeout(TRY_SECONDS):
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


async def _speaks_plain_text(host: str, port: int) -> bool:
    try:
        async with asyncio.timeout(TRY_SECONDS):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                writer.write(b"PING\r\n")
                reply = await reader.read(_LONGEST_REPLY)
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return False
    return reply.startswith((b"+", b"-"))


async def _speaks_tls(host: str, port: int) -> bool:
    context = ssl.create_default_context()
    # Nothing is sent: whose certificate it is does not matter.
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        async with asyncio.timeout(TRY_SECONDS):
            _, writer = await asyncio.open_connection(host, port, ssl=context)
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True
