"""Every kind of error, named for what the loop does next.

Transient: try again. Malformed: quarantine. Fatal: stop.

The message of an error is what an operator reads. So it names the thing, and says what to do.
"""

from enum import IntEnum


class ExitCode(IntEnum):
    """The exit status of a command."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    PUBNUB_REFUSED = 3
    REDIS_UNFIT = 4
    DIFFERENCES = 5


class TallyError(Exception):
    """An error that the worker raises on purpose."""

    exit_code = ExitCode.FAILED


class TransientError(TallyError):
    """An error that may pass: try again. Nothing was lost."""


class MalformedError(TallyError):
    """An event or action that cannot be understood. The quarantine keeps it with this reason."""


class FatalError(TallyError):
    """An error that only a person can mend. The process stops."""


class ConfigurationError(FatalError):
    """A setting or an argument is missing or wrong."""

    exit_code = ExitCode.USAGE


class PubNubError(TransientError):
    """PubNub did not answer, or its answer makes no sense.

    ``status`` is the HTTP status. It is None if unknown: the SDK loses it if the body is not JSON.
    """

    exit_code = ExitCode.PUBNUB_REFUSED

    def __init__(self, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class ThrottledError(PubNubError):
    """PubNub answered 429.

    ``retry_after`` is the wait that PubNub asked for, in seconds; None if it named none.
    """

    def __init__(self, message: str, *, retry_after: float | None) -> None:
        super().__init__(message, status=429)
        self.retry_after = retry_after


class ForbiddenError(PubNubError):
    """PubNub answered 403.

    ``channels`` and ``groups`` are the refused names. Both are empty if PubNub named none.
    ``has_advice`` tells whether the message says what to do.
    """

    def __init__(
        self,
        message: str,
        *,
        channels: frozenset[str],
        groups: frozenset[str],
        has_advice: bool = False,
    ) -> None:
        super().__init__(message, status=403)
        self.has_advice = has_advice
        self.channels = channels
        self.groups = groups


class RedisUnavailableError(TransientError):
    """Redis did not answer, or takes no writes just now.

    Examples: it is loading, read-only, out of memory, or failing over.
    """

    exit_code = ExitCode.REDIS_UNFIT


class MissingPermissionError(RedisUnavailableError):
    """An ACL refuses a command or a key to the user of Redis.

    A script may have written something before it was refused.
    """


class RedisReplacedError(RedisUnavailableError):
    """Redis was restarted, or another server answers. It may lack the last writes.

    What is lost must be marked before anything else is written there.
    """


class StaleError(TransientError):
    """Events waited so long that their tombstones may be gone. Read them again."""


class CutOffError(StaleError):
    """Nobody knows whether the events were applied. Read them again."""


class RolledBackError(StaleError):
    """Redis went back to an older state. Go on from what it knows: read again what it forgot."""


class RedisUnfitError(FatalError):
    """Redis answers, but must not be used.

    Examples: it is too old, it evicts keys, or the namespace holds other tallies.
    """

    exit_code = ExitCode.REDIS_UNFIT


class ScriptRefusedError(TallyError):
    """Redis refused these arguments, and will refuse them again. Split the batch."""


class DamagedKeyError(ScriptRefusedError):
    """A key of a channel is not what the worker keeps there.

    It concerns this channel alone. Try again later: a person must delete the key.
    """

    exit_code = ExitCode.REDIS_UNFIT

    def __init__(self, message: str, *, channel: str, key: str) -> None:
        super().__init__(message)
        self.channel = channel
        self.key = key


def first_of(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the first error of a group, however deep it lies."""
    error = errors.exceptions[0]
    if isinstance(error, BaseExceptionGroup):
        return first_of(error)
    return error
