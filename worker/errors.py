"""What can go wrong, named for what the loop does next: transient (retry), malformed (quarantine), fatal (stop).

The sentence given to an exception is the message an operator reads, so it names the thing and says what to do.
"""

from enum import IntEnum


class ExitCode(IntEnum):
    """How a command ended, as its process exit status."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    PUBNUB_REFUSED = 3
    REDIS_UNFIT = 4
    DIFFERENCES = 5


class TallyError(Exception):
    """Anything this project raises on purpose."""

    exit_code = ExitCode.FAILED


class TransientError(TallyError):
    """Something that may be over when it is tried again; nothing was lost."""


class MalformedError(TallyError):
    """One event or action that cannot be understood; it goes to the quarantine with this reason."""


class FatalError(TallyError):
    """Something only a person can mend; the process stops."""


class ConfigurationError(FatalError):
    """A setting or an argument that is missing or wrong."""

    exit_code = ExitCode.USAGE


class PubNubError(TransientError):
    """PubNub did not answer, or answered something that is not an answer: try again.

    ``status`` is the HTTP status where one is known (the SDK loses it when the body is not JSON).
    """

    exit_code = ExitCode.PUBNUB_REFUSED

    def __init__(self, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class ThrottledError(PubNubError):
    """PubNub answered 429; ``retry_after`` is the seconds it asked for, or None if it named none."""

    def __init__(self, message: str, *, retry_after: float | None) -> None:
        super().__init__(message, status=429)
        self.retry_after = retry_after


class ForbiddenError(PubNubError):
    """PubNub answered 403; ``channels`` and ``groups`` are the names it refused (both empty: it named none)."""

    def __init__(self, message: str, *, channels: frozenset[str], groups: frozenset[str]) -> None:
        super().__init__(message, status=403)
        self.channels = channels
        self.groups = groups


class RedisUnavailableError(TransientError):
    """Redis did not answer, or cannot take writes just now (loading, read-only, out of memory, failing over)."""

    exit_code = ExitCode.REDIS_UNFIT


class RedisReplacedError(RedisUnavailableError):
    """Another Redis server answers than before, which may lack what was written last: mark every channel first."""


class RedisUnfitError(FatalError):
    """Redis answers, but must not be used as it is: too old, evicting, or holding somebody else's tallies."""

    exit_code = ExitCode.REDIS_UNFIT


class ScriptRefusedError(TallyError):
    """Redis refused these very arguments; it will refuse them again, so the batch must be taken apart."""


def first_of(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the first error of a group, however deep it lies."""
    error = errors.exceptions[0]
    return first_of(error) if isinstance(error, BaseExceptionGroup) else error
