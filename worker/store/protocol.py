"""Does a port speak TLS, or plain text? The answer explains a connection that fails."""

import asyncio
import ssl
from typing import Any, Final, cast

from redis.asyncio import Redis, SSLConnection

TRY_SECONDS: Final = 1.0
_LONGEST_REPLY: Final = 64


async def explain_failure(redis: Redis) -> str:
    """Return what to change in REDIS_URL; an empty text if nothing is known."""
    pool = cast("Any", redis).connection_pool
    options = pool.connection_kwargs
    if "host" not in options:
        return ""
    address = options["host"], options.get("port", 6379)
    host, port = address
    if issubclass(pool.connection_class, SSLConnection):
        if await _speaks_plain_text(*address):
            return f"{host}:{port} speaks no TLS: REDIS_URL begins with rediss://, write redis://."
    elif await _speaks_tls(*address):
        return f"{host}:{port} speaks TLS: REDIS_URL begins with redis://, write rediss://."
    return ""


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
