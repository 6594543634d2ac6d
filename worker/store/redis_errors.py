"""Errors of redis-py, translated into errors of this program."""

import asyncio
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from redis import exceptions

from reaction_tally.replies import REASON_CHARACTERS, REDIS_ERRORS, by_kind
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
    is_no_cluster,
    sentence_of,
)
from worker.store.tls_failures import explain_tls, tls_error

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
    "Redis takes no writes now: it cannot save to its disk "
    "(MISCONF). "
    "Its own log says why; often the disk is full."
)
"""Redis says it in many words, also to a PING."""
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
    except (*REDIS_ERRORS, UnicodeError) as error:
        raise translated(error) from error
    finally:
        # Also after an error: a task that is cancelled must not try again.
        if task and task.cancelling() > cancellations:
            raise asyncio.CancelledError


def translated(error: Exception) -> TallyError:
    """Return the error of this program for one of redis-py."""
    if isinstance(error, exceptions.RedisClusterException):
        return _of_cluster(error)
    return _of_server(error)


def _of_cluster(error: exceptions.RedisClusterException) -> TallyError:
    """Translate what redis-py's client of a cluster says of all its nodes."""
    if is_no_cluster(error):
        return RedisUnfitError(NO_CLUSTER)
    cause = cause_of(error)
    if isinstance(cause, Exception):
        return translated(cause)
    return _of_server(error)


def _of_server(error: Exception) -> TallyError:
    reason = _reason(error)
    sentence = sentence_of(error, reason)
    if sentence:
        return RedisUnavailableError(sentence)
    translate = by_kind(_TRANSLATORS, error, _unknown)
    return translate(error, reason)


def _unknown(_: Exception, reason: str) -> TallyError:
    return RedisUnavailableError(f"Redis failed: {reason}")


def _replaced(_: Exception, reason: str) -> TallyError:
    return RedisReplacedError(f"Redis takes no writes yet: {reason}.")


def _unsendable(_: Exception, reason: str) -> TallyError:
    return ScriptRefusedError(f"This cannot be sent to Redis: {reason}")


def _refused(error: Exception, reason: str) -> TallyError:
    if _is_such(error, exceptions.NoPermissionError, _FORBIDDEN):
        return MissingPermissionError(
            f"Redis does not permit this to the user in REDIS_URL: {reason}"
        )
    if str(error).endswith(_NO_DATABASES):
        return RedisUnfitError(_about_database(str(error)))
    if not _is_such(error, _TEMPORARY_ERRORS, _TEMPORARY_CODES):
        return ScriptRefusedError(f"Redis refused a command: {reason}")
    if "MISCONF" in reason:
        return RedisUnavailableError(CANNOT_SAVE)
    return RedisUnavailableError(f"Redis cannot do this now: {reason}")


def _is_such(
    error: Exception,
    kinds: type[Exception] | tuple[type[Exception], ...],
    codes: re.Pattern[str],
) -> bool:
    """Tell whether an error is of these kinds, or its text has one of these codes."""
    if isinstance(error, kinds):
        return True
    found = codes.search(_without_command(error))
    return found is not None


def _not_connected(error: Exception, reason: str) -> TallyError:
    return RedisUnavailableError(_about_connection(error, reason))


def _about_connection(error: Exception, reason: str) -> str:
    tls = tls_error(error)
    if tls:
        return f"Redis does not answer: {explain_tls(tls)}"
    if _NO_ROOM in reason:
        return (
            "Redis takes no more connections: as many are open as "
            "maxclients permits. "
            "End a program that holds many, or raise maxclients in "
            "Redis's configuration."
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


def _other_server(_: Exception, reason: str) -> TallyError:
    kind = " (it looks like HTTP)" if _HTTP.search(reason) else ""
    return RedisUnavailableError(
        f"What answers there is no Redis{kind}: {reason}. Check the host and the port in REDIS_URL."
    )


def _wrong_credentials(_: Exception, reason: str) -> TallyError:
    if _NO_PASSWORD.search(reason):
        return RedisUnavailableError(
            "Redis wants a password, and REDIS_URL has none. "
            "Write USER:PASSWORD@ there, before the host."
        )
    return RedisUnavailableError(
        f"Redis refuses the credentials in REDIS_URL: {reason} "
        "Correct the user and the password there: USER:PASSWORD@ stands before the host."
    )


Translator = Callable[[Exception, str], TallyError]
_TRANSLATORS: Final[Mapping[type[Exception], Translator]] = {
    ServerReplacedError: _replaced,
    exceptions.DataError: _unsendable,
    UnicodeError: _unsendable,
    exceptions.ResponseError: _refused,
    exceptions.AuthenticationError: _wrong_credentials,
    exceptions.ConnectionError: _not_connected,
    exceptions.TimeoutError: _not_connected,
    OSError: _not_connected,
    exceptions.InvalidResponse: _other_server,
}
"""Error of redis-py → its translator. The first kind that fits counts."""


def _reason(error: Exception) -> str:
    if isinstance(error, UnicodeEncodeError):
        return error.reason
    if isinstance(error, UnicodeError):
        return "it is not Unicode text"
    lines = _without_command(error).splitlines()
    first, *_ = [*lines, type(error).__name__]
    return first[:REASON_CHARACTERS]


def _without_command(error: Exception) -> str:
    # In a pipeline redis-py quotes the command, with texts of strangers.
    quoted = _IN_A_PIPELINE.fullmatch(str(error))
    return quoted[1] if quoted else str(error)
