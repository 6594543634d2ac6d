"""How long requests for history are repeated."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol, Self, TypeVar

import structlog

from worker.domain.forgotten_users import NOBODY, ForgottenUsers
from worker.errors import ForbiddenError, PubNubError, ThrottledError
from worker.source.backoff import Backoff
from worker.source.wire import CountedTypes
from worker.store.progress import Progress
from worker.telemetry.throttled_warning import ThrottledWarning

Result = TypeVar("Result")

log = structlog.get_logger(__name__)


async def passing() -> None:
    """Let nobody go first."""


async def nobody() -> ForgottenUsers:
    """Return that nobody is forgotten."""
    return NOBODY


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How history is read: up to ``tries`` failures in a row, or for ever if None.

    A 403 is raised at once.
    """

    counted_types: CountedTypes
    backoff: Callable[[], Backoff]
    hold: Callable[[float], Awaitable[None]]
    """Lets every process wait for so many seconds."""
    clock: Callable[[], float]
    settle_seconds: float
    tries: int | None = None
    warning: ThrottledWarning | None = None
    """Shared by all channels: the cause is the same PubNub."""
    pause: Callable[[float], Awaitable[None]] = asyncio.sleep
    """Waits so many seconds. Others may send requests meanwhile."""
    give_way: Callable[[], Awaitable[None]] = passing
    """Lets more urgent passes over history go first; called between two pages."""
    forgotten_users: Callable[[], Awaitable[ForgottenUsers]] = nobody
    """Returns whose actions do not count; read from Redis ten seconds ago at most."""


class ProgressWatcher(Protocol):
    """Shows how far history is read."""

    def reach(self, channel: str, progress: Progress) -> None:
        """Show how far a channel is read; called after each page."""


def history_warning(clock: Callable[[], float]) -> ThrottledWarning:
    """Return a warning that PubNub gives no history."""
    return ThrottledWarning(log, "history_waits", "history_goes_on", clock)


class Retry:
    """Waits after failures of PubNub, for one channel."""

    def __init__(self, channel: str, policy: RetryPolicy) -> None:
        self._channel = channel
        self._policy = policy
        self._backoff = policy.backoff()
        self._warning = policy.warning or history_warning(policy.clock)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._warning.drop(self)

    def succeeded(self) -> None:
        """Note that PubNub answered."""
        self._backoff.succeeded()
        self._warning.recovered(self)

    async def after(self, error: PubNubError) -> None:
        """Wait after a failure; after a 429 every process waits.

        Raises:
            PubNubError: the failure itself, if it is final.
        """
        tries = self._policy.tries
        is_last = tries is not None and self._backoff.failures + 1 >= tries
        if is_last or isinstance(error, ForbiddenError):
            raise error
        self._warning.failing(self, channel=self._channel, reason=str(error))
        wait = self._backoff.failed(error)
        if isinstance(error, ThrottledError):
            await self._policy.hold(wait)
        # Requests for PubNub's clock are outside the budget that was held.
        # They wait here; for others the time has passed already.
        await self._policy.pause(wait)


async def retry(
    call: Callable[[], Awaitable[Result]],
    channel: str,
    policy: RetryPolicy,
) -> Result:
    """Return what the call returns, trying again as the policy says.

    Raises:
        PubNubError: it failed too often, or PubNub refused.
    """
    with Retry(channel, policy) as retry:
        while True:
            try:
                result = await call()
            except PubNubError as error:
                await retry.after(error)
            else:
                retry.succeeded()
                return result
