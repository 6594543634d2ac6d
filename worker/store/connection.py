"""A connection to Redis, and what its refusals mean for us."""

import asyncio
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final
from urllib.parse import urlsplit

import hiredis
from redis.asyncio import ConnectionPool, Redis
from redis.exceptions import (
    AuthenticationError,
    ClusterDownError,
    ConnectionError,  # noqa: A004 - redis-py's own, a superclass of its network failures
    DataError,
    MasterDownError,
    NoPermissionError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TimeoutError,  # noqa: A004 - as above
    TryAgainError,
)

from worker.errors import (
    ConfigurationError,
    RedisReplacedError,
    RedisUnavailableError,
    ScriptRefusedError,
)
from worker.store.rollback_detector import ReplacedError, RollbackDetector

RedisClient = Redis
"""A client, as the rest of the program knows it: something to hand to the store, which alone speaks to Redis."""

SCHEMES: Final = ("redis", "rediss", "unix")
SOCKET_TIMEOUT_SECONDS: Final = 10.0

_IN_A_PIPELINE: Final = re.compile(
    r"""Command # \d+ \(.*\) of pipeline caused error: (?:\(['"])?(.*?)(?:['"],\))?""", re.DOTALL
)

# A script that is forgotten (a flush, a failover) just after redis-py loaded it again is loaded at the next try.
_PASSING_ERRORS = (
    OutOfMemoryError,
    ReadOnlyError,
    MasterDownError,
    ClusterDownError,
    TryAgainError,
    NoScriptError,
)
# Codes redis-py has no class for; and Redis 6.2 hides a script's inner code in the text, so look everywhere in it.
_PASSING_CODES = (
    "OOM ",
    "LOADING ",
    "READONLY ",
    "MASTERDOWN ",
    "CLUSTERDOWN ",
    "TRYAGAIN ",
    "NOREPLICAS ",
    "MISCONF ",
    "BUSY ",
    "UNKILLABLE ",
    "NOAUTH ",
    "NOPERM ",
    "WRONGPASS ",
    "max number of clients",
)


def connect(url: str, rollback_detector: RollbackDetector | None = None) -> Redis:
    """Return a client for ``redis://``, ``rediss://`` or ``unix://``; it connects when it is first used.

    With a ``lineage``, it refuses to speak to another server than it spoke to before, until that is accepted.

    Raises:
        ConfigurationError: the address is of no kind we know, or malformed.
    """
    try:
        if urlsplit(url).scheme in SCHEMES:
            return _client(url, rollback_detector)
    except (ValueError, TypeError, RedisError):
        # Their own words would quote what stands where a password may stand.
        raise ConfigurationError(
            "REDIS_URL cannot be read. It is like redis://:password@host:6379/0; whatever is special in a password "
            "(/ @ : # ? [ ] %) must be percent-encoded."
        ) from None
    kinds = ", ".join(f"{scheme}://" for scheme in SCHEMES)
    raise ConfigurationError(
        f"REDIS_URL must begin with one of {kinds}. Leave it unset for an embedded Valkey."
    )


def _client(url: str, rollback_detector: RollbackDetector | None) -> Redis:
    redis: Redis = Redis.from_url(
        url,
        decode_responses=True,
        socket_timeout=SOCKET_TIMEOUT_SECONDS,
        socket_connect_timeout=SOCKET_TIMEOUT_SECONDS,
        health_check_interval=30,
        # A server that became a replica refuses writes for ever: connect again, the address may lead elsewhere now.
        retry_on_error=[ReadOnlyError],
        redis_connect_func=rollback_detector and rollback_detector.greet,
    )
    pool = redis.connection_pool
    pool.connection_class = type("Connection", (Sending, pool.connection_class), {})
    pool.connection_class(
        **pool.connection_kwargs
    )  # an unknown option in the address would only show when connecting
    return redis


class Sending:
    """Mixed into a connection: who is cancelled while sending is cancelled, and hiredis packs what is sent."""

    async def send_packed_command(self, command: Any, check_health: bool = True) -> None:
        """Send, and raise a cancellation that was swallowed: on Python 3.11 redis-py's ``wait_for`` prefers its result.

        Else whoever is to end would wait for an answer first: for half a minute, where Redis hangs.
        """
        task = asyncio.current_task()
        cancellations = task.cancelling() if task else 0
        try:
            await super().send_packed_command(command, check_health)  # type: ignore[misc] # the connection's
        finally:  # also after an error, which would hide the cancellation until all retries are over
            if task and task.cancelling() > cancellations:
                await self.disconnect(nowait=True)  # type: ignore[attr-defined] # or the next call gets this one's answer
                raise asyncio.CancelledError

    def pack_command(self, *args: Any) -> list[bytes]:
        """Return one command as it is sent, its name in two words or one; redis-py would do it in Python."""
        return [hiredis.pack_command((*args[0].encode().split(), *args[1:]))]

    def pack_commands(self, commands: Iterable[Any]) -> list[bytes]:
        """Return several commands as they are sent."""
        return [packed for command in commands for packed in self.pack_command(*command)]


def unguarded(redis: Redis) -> Redis:
    """Return another client of the same address, which speaks to whatever server answers there."""
    pool = redis.connection_pool
    kwargs = {**pool.connection_kwargs, "redis_connect_func": None}
    return Redis.from_pool(ConnectionPool(pool.connection_class, **kwargs))


@contextmanager
def redis_errors() -> Iterator[None]:
    """Turn what redis-py raises into our two kinds: try again, or take the batch apart.

    A cancellation it swallowed is raised, too: on Python 3.11 its ``wait_for`` prefers a result to being cancelled, and
    a task that should end would go on.

    Raises:
        RedisUnavailableError: Redis is away or takes no writes now; nothing is known to have been written.
        ScriptRefusedError: these arguments will be refused for ever.
    """
    task = _current_task()
    cancellations = task.cancelling() if task else 0
    try:
        yield
    except ReplacedError as error:
        raise RedisReplacedError(f"Redis went back: {_text(error)}.") from error
    except (AuthenticationError, NoPermissionError) as error:
        raise RedisUnavailableError(
            f"Redis refuses the credentials in REDIS_URL: {_text(error)}"
        ) from error
    except (ConnectionError, TimeoutError, OSError) as error:
        raise RedisUnavailableError(
            f"Redis does not answer ({_text(error)}). Is it running, and is REDIS_URL right?"
        ) from error
    except ResponseError as error:
        if isinstance(error, _PASSING_ERRORS) or any(
            code in _said(error) for code in _PASSING_CODES
        ):
            raise RedisUnavailableError(f"Redis cannot do this now: {_text(error)}") from error
        raise ScriptRefusedError(f"Redis refused a command: {_text(error)}") from error
    except (DataError, UnicodeError) as error:
        raise ScriptRefusedError(f"This cannot be sent to Redis: {_text(error)}") from error
    except RedisError as error:
        raise RedisUnavailableError(f"Redis failed: {_text(error)}") from error
    finally:  # after an error too: who is cancelled must not try again
        if task and task.cancelling() > cancellations:
            raise asyncio.CancelledError


def _current_task() -> asyncio.Task[object] | None:
    try:
        return asyncio.current_task()
    except RuntimeError:  # no loop runs: nothing here can be cancelled
        return None


def _said(error: Exception) -> str:
    """Return an error's words, without the command, strangers' words and all, that redis-py quotes in a pipeline."""
    quoted = _IN_A_PIPELINE.fullmatch(str(error))
    return quoted[1] if quoted else str(error)


def _text(error: Exception) -> str:
    if isinstance(error, UnicodeError):
        return error.reason if isinstance(error, UnicodeEncodeError) else "it is not Unicode text"
    said = _said(error)
    return said.splitlines()[0][:200] if said else type(error).__name__
