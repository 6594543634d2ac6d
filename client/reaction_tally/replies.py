"""Replies of Redis, with or without ``decode_responses``."""

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final, TypeVar

from redis import exceptions, sentinel
from redis.asyncio import sentinel as async_sentinel

from reaction_tally.errors import NotPermittedError, RedisUnavailableError, TallyReadError

Value = TypeVar("Value")
Translation = tuple[type[TallyReadError], str]
"""An error of a reader, and its sentence."""

REDIS_ERRORS: Final = (
    exceptions.RedisError,
    exceptions.RedisClusterException,
    OSError,
)
"""What redis-py raises. The second is no kind of the first."""
_FORBIDDEN: Final = re.compile(
    "NOPERM |The user executing the script can't |ACL failure in script: "
)
"""What servers say if an ACL refuses something. The last two are of a script."""
_BUSY: Final = re.compile("(?:LOADING|BUSY|MASTERDOWN|CLUSTERDOWN|TRYAGAIN) ")
"""For some codes redis-py has no class."""
REASON_CHARACTERS: Final = 200
"""An error quotes that much of what Redis said."""
_TLS_HINT: Final = "The address must begin with rediss if the servers speak TLS, and only then."
_MAY_BE_TLS: Final = re.compile(
    "Connection closed by server|Connection reset|Broken pipe"
    "|handshake operation timed out|UNEXPECTED_EOF|WRONG_VERSION_NUMBER"
    "|PACKET_LENGTH_TOO_LONG|RECORD_LAYER_FAILURE"
)
"""What redis-py says of a connection that began, and that TLS may have ended."""
_AWAY: Final[Translation] = (
    RedisUnavailableError,
    "Redis does not answer: {reason}",
)
_ENDED: Final[Translation] = (
    RedisUnavailableError,
    f"Redis does not answer: {{unended}}. {_TLS_HINT}",
)
_FORBIDDING: Final[Translation] = (
    NotPermittedError,
    "Redis does not permit this to the user in the address: {reason}",
)
_NO_PRIMARY: Final[Translation] = (
    RedisUnavailableError,
    (
        "The Sentinels that answer know no primary "
        "of the service now ({text}). "
        "Are the hosts and the service in the address right? "
        f"{_TLS_HINT}"
    ),
)
_TRANSLATIONS: Final[Mapping[type[Exception], Translation]] = {
    # MOVED is a kind of it.
    exceptions.AskError: (
        RedisUnavailableError,
        (
            "This is a node of a Redis Cluster, "
            "and another node has the key. "
            "The address must be redis+cluster://host:port. "
            "While the cluster moves slots, this passes."
        ),
    ),
    exceptions.MaxConnectionsError: (
        RedisUnavailableError,
        (
            "No connection is free in the pool "
            "of the client that you gave. "
            "In an address, max_connections is how many there are."
        ),
    ),
    exceptions.RedisClusterException: (
        RedisUnavailableError,
        (
            "The Redis Cluster does not serve ({text}). "
            "The address of one server is redis://host:port."
        ),
    ),
    sentinel.MasterNotFoundError: _NO_PRIMARY,
    async_sentinel.MasterNotFoundError: _NO_PRIMARY,
    exceptions.AuthenticationError: (
        NotPermittedError,
        "Redis refuses the user or the password: {reason}",
    ),
    exceptions.ClusterDownError: _AWAY,
    exceptions.TryAgainError: _AWAY,
    exceptions.ResponseError: (
        TallyReadError,
        "Redis refused a command: {reason}",
    ),
}
"""Error of redis-py → error of a reader. The first kind that fits counts."""
UNREADABLE: Final = (ValueError, OverflowError, IndexError)
"""What a reply leads to that the worker never writes."""


def text(value: Any) -> str:
    """Return a reply as text."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogateescape")
    return str(value)


def texts(values: Iterable[Any]) -> list[str]:
    """Return replies as texts."""
    return list(map(text, values))


def check_reply(reply: Any) -> Any:
    """Return a reply.

    Raises:
        TallyReadError: it is an error.
    """
    if isinstance(reply, Exception):
        raise translated(reply) from reply
    return reply


def is_forbidden(reply: Any) -> bool:
    """Tell whether a reply says that the user of Redis may not do this."""
    if isinstance(reply, exceptions.NoPermissionError):
        return True
    if not isinstance(reply, exceptions.ResponseError):
        return False
    found = _FORBIDDEN.search(str(reply))
    return found is not None


def is_unknown_command(reply: Any) -> bool:
    """Tell whether a server has no such command. Some rename EVAL, so that nobody runs it."""
    is_refusal = isinstance(reply, exceptions.ResponseError)
    return is_refusal and str(reply).startswith("unknown command")


def translated(error: Exception) -> TallyReadError:
    """Return the error of a reader for one of redis-py."""
    cause = error.__cause__
    is_of_cluster = isinstance(error, exceptions.RedisClusterException)
    if is_of_cluster and isinstance(cause, exceptions.RedisError | OSError):
        return translated(cause)
    lines = [*str(error).splitlines(), type(error).__name__]
    reason = lines[0][:REASON_CHARACTERS]
    kind, sentence = _translation(error, reason)
    # Behind a colon redis-py lists its clients of the Sentinels.
    text, _, _ = str(error).partition(" : ")
    unended = reason.rstrip(".")
    return kind(sentence.format(reason=reason, text=text, unended=unended))


def _translation(error: Exception, reason: str) -> Translation:
    if is_forbidden(error):
        return _FORBIDDING
    if _BUSY.match(reason):
        return _AWAY
    # A timeout of redis-py names the handshake only in what it was raised for.
    known = f"{error} {error.__context__}"
    otherwise = _ENDED if _MAY_BE_TLS.search(known) else _AWAY
    return by_kind(_TRANSLATIONS, error, otherwise)


def by_kind(
    table: Mapping[type[Exception], Value],
    error: Exception,
    otherwise: Value,
) -> Value:
    """Return what a table has for the first kind that an error is of."""
    for kind, value in table.items():
        if isinstance(error, kind):
            return value
    return otherwise


def unreadable(error: Exception) -> TallyReadError:
    """Return the error about data that another program wrote."""
    return TallyReadError(f"Redis holds what the worker never writes: {error}")


def pairs(reply: Any) -> list[tuple[str, str]]:
    """Return the fields and values of a reply.

    A client may make a dict of it, or pairs, or leave it flat.
    """
    reply = check_reply(reply)
    if isinstance(reply, dict):
        return _as_text(reply.items())
    if reply and isinstance(reply[0], list | tuple):
        return _as_text(reply)
    fields = reply[::2]
    values = reply[1::2]
    return _as_text(zip(fields, values, strict=True))


def _as_text(fields: Iterable[Any]) -> list[tuple[str, str]]:
    return [(text(field), text(value)) for field, value in fields]
