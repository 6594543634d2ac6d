"""Errors of redis-py, translated into errors of this program."""

import asyncio
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from redis import exceptions

from worker.errors import (
    MissingPermissionError,
    RedisReplacedError,
    RedisUnavailableError,
    RedisUnfitError,
    ScriptRefusedError,
    TallyError,
)
from worker.store.cluster_errors import (
    NO_CLUSTER,
    NO_SELECT,
    NODE_OF_A_CLUSTER,
    cause_of,
    is_other_server,
    sentence_of,
)
from worker.store.tls_failures import explain_tls, tls_error

REASON_CHARACTERS: Final = 200
"""An error quotes that much of what Redis said."""

_TEMPORARY_ERRORS: Final = (
    exceptions.OutOfMemoryError,
    exceptions.ReadOnlyError,
    exceptions.MasterDownError,
    exceptions.ClusterDownError,
    exceptions.TryAgainError,
    # redis-py loaded the script, and Redis forgot it again at once.
    exceptions.NoScriptError,
)
_TEMPORARY_CODES: Final = re.compile(
    "(?:OOM|LOADING|BUSY|UNKILLABLE|MISCONF"
    "|READONLY|MASTERDOWN|CLUSTERDOWN|TRYAGAIN|NOREPLICAS"
    "|NOAUTH|WRONGPASS) |max number of clients"
)
"""For some codes redis-py has no class.

Redis 6.2 hides the code of an error inside a script in the text.
So a code may stand anywhere in the text.
"""

CANNOT_SAVE: Final = (
    "Redis takes no writes now: it cannot save to its disk (MISCONF). "
    "Its own log says why; often the disk is full."
)
"""Redis says it in many words, also to a PING."""
_OF_REDIS: Final = (
    exceptions.RedisError,
    exceptions.RedisClusterException,
    OSError,
    UnicodeError,
)
"""What redis-py raises. The second is no kind of the first."""
_NO_PASSWORD: Final = re.compile("HELLO must be called with|Authentication required")
_CONNECTING: Final = re.compile(r"(Error -?\d+ connecting to \S+)\. (.+?)\.?$")
"""What redis-py says of a connection that fails: the place, and the system's words."""
_REFUSED: Final = re.compile(r"Connect call failed \(.*\)$")
_NO_ROOM: Final = "max number of clients"
_NO_DATABASES: Final = ("DB index is out of range", NO_SELECT)
_HTTP: Final = re.compile('got "[H<]"')
"""What hiredis says of a line such as ``HTTP/1.1 400``, or of a page."""
_FORBIDDEN: Final = re.compile(
    "NOPERM |The user executing the script can't |ACL failure in script: "
)
"""What servers say if an ACL refuses something.

The last two are of a command inside a script.
"""

_IN_A_PIPELINE: Final = re.compile(
    r"Command # \d+ \(.*\) of pipeline caused error: "
    r"""(?:\(['"])?(.*?)(?:['"],\))?""",
    re.DOTALL,
)


class ServerReplacedError(exceptions.RedisError):
    """Another server answers; redis-py does not try again."""


@contextmanager
def redis_errors() -> Iterator[None]:
    """Translate what redis-py raises, and raise cancellations it swallowed.

    On Python 3.11 ``wait_for`` in redis-py prefers a result
    to a cancellation. The task that was cancelled would go on.

    Raises:
        RedisReplacedError: Redis was restarted or replaced.
        MissingPermissionError: an ACL refuses a command or a key.
            A script may have written something.
        RedisUnavailableError: Redis is away, or takes no writes now.
            Nothing is known to have been written.
        RedisUnfitError: Redis lacks the database that was asked for.
        ScriptRefusedError: Redis will always refuse these arguments.
    """
    task = asyncio.current_task()
    cancellations = task.cancelling() if task else 0
    try:
        yield
    except _OF_REDIS as error:
        raise translated(error) from error
    finally:
        # Also after an error: a task that is cancelled must not try again.
        if task and task.cancelling() > cancellations:
            raise asyncio.CancelledError


def translated(error: Exception) -> TallyError:
    """Return the error of this program for one of redis-py."""
    reason = _reason(error)
    if isinstance(error, exceptions.RedisClusterException):
        if is_other_server(error):
            return RedisUnfitError(NO_CLUSTER)
        cause = cause_of(error)
        if cause:
            return translated(cause)
    sentence = sentence_of(error, reason)
    if sentence:
        return RedisUnavailableError(sentence)
    return _of_one_server(error, reason)


def _of_one_server(error: Exception, reason: str) -> TallyError:
    match error:
        case ServerReplacedError():
            return RedisReplacedError(f"Redis takes no writes yet: {reason}.")
        case exceptions.DataError() | UnicodeError():
            return ScriptRefusedError(f"This cannot be sent to Redis: {reason}")
        case exceptions.ResponseError() if _is_forbidden(error):
            return MissingPermissionError(
                f"Redis does not permit this to the user in REDIS_URL: {reason}"
            )
        case exceptions.ResponseError() if str(error).endswith(_NO_DATABASES):
            return RedisUnfitError(_about_database(str(error)))
        case exceptions.AuthenticationError():
            sentence = _about_credentials(reason)
        case exceptions.ConnectionError() | exceptions.TimeoutError() | OSError():
            sentence = _about_connection(error, reason)
        case exceptions.ResponseError() if not _is_temporary(error):
            return ScriptRefusedError(f"Redis refused a command: {reason}")
        case exceptions.ResponseError():
            sentence = CANNOT_SAVE if "MISCONF" in reason else f"Redis cannot do this now: {reason}"
        case exceptions.InvalidResponse():
            sentence = _about_other_server(reason)
        case _:
            sentence = f"Redis failed: {reason}"
    return RedisUnavailableError(sentence)


def _about_connection(error: Exception, reason: str) -> str:
    tls = tls_error(error)
    if tls:
        return f"Redis does not answer: {explain_tls(tls)}"
    if _NO_ROOM in reason:
        return (
            "Redis takes no more connections: as many are open as maxclients permits. "
            "End a program that holds many, or raise maxclients in Redis's configuration."
        )
    return f"Redis does not answer ({in_words(reason)}). Is it running, and is REDIS_URL right?"


def connection_failure(error: Exception) -> str:
    """Return which connection failed, and why."""
    tls = tls_error(error)
    return explain_tls(tls) if tls else in_words(_reason(error))


def in_words(reason: str) -> str:
    """Return what redis-py says of a connection that fails, without Python's own words."""
    return _REFUSED.sub("connection refused", _CONNECTING.sub(r"\1: \2", reason))


def _about_database(text: str) -> str:
    if text.endswith(NO_SELECT):
        return NODE_OF_A_CLUSTER
    return "Redis has no database of the number in REDIS_URL. Most servers have 16: 0 to 15."


def _about_other_server(reason: str) -> str:
    kind = " (it looks like HTTP)" if _HTTP.search(reason) else ""
    return (
        f"What answers there is no Redis{kind}: {reason}. Check the host and the port in REDIS_URL."
    )


def _about_credentials(reason: str) -> str:
    right_form = "redis://USER:PASSWORD@HOST:6379/0"
    if _NO_PASSWORD.search(reason):
        return f"Redis wants a password, and REDIS_URL has none. Write it there: {right_form}."
    return (
        f"Redis refuses the credentials in REDIS_URL: {reason} "
        f"Correct the user and the password there: {right_form}."
    )


def _is_forbidden(error: exceptions.ResponseError) -> bool:
    if isinstance(error, exceptions.NoPermissionError):
        return True
    return bool(_FORBIDDEN.search(_without_command(error)))


def _is_temporary(error: exceptions.ResponseError) -> bool:
    if isinstance(error, _TEMPORARY_ERRORS):
        return True
    return bool(_TEMPORARY_CODES.search(_without_command(error)))


def _reason(error: Exception) -> str:
    if isinstance(error, UnicodeEncodeError):
        return error.reason
    if isinstance(error, UnicodeError):
        return "it is not Unicode text"
    lines = _without_command(error).splitlines()
    return lines[0][:REASON_CHARACTERS] if lines else type(error).__name__


def _without_command(error: Exception) -> str:
    # In a pipeline redis-py quotes the command, with texts of strangers.
    quoted = _IN_A_PIPELINE.fullmatch(str(error))
    return quoted[1] if quoted else str(error)
