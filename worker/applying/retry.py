"""How long PubNub's history is asked again and again before a failure is somebody else's business."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol, Self, TypeVar

import structlog

from worker.errors import ForbiddenError, PubNubError, ThrottledError
from worker.source.backoff import Backoff
from worker.source.wire import CountedTypes
from worker.store.progress import Progress
from worker.telemetry.throttled_warning import ThrottledWarning

Result = TypeVar("Result")
log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How history is read. A 403 ends it, and so do ``tries`` failures in a row (None: they never do)."""

    counted_types: CountedTypes
    backoff: Callable[[], Backoff]
    hold: Callable[[float], Awaitable[None]]
    clock: Callable[[], float]
    settle_seconds: float
    tries: int | None = None
    warning: ThrottledWarning | None = None
    """Shared by all channels: they would complain of the same PubNub."""


class ProgressWatcher(Protocol):
    """Shows how far history is read."""

    def reach(self, channel: str, place: Progress) -> None:
        """Show how far a channel is read; called after each page."""


def history_warning(clock: Callable[[], float]) -> ThrottledWarning:
    """Return a complaint that PubNub does not answer questions about history."""
    return ThrottledWarning(log, "history_waits", "history_goes_on", clock)


class Retry:
    """Waits after PubNub's failures, for one channel, while this is open."""

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
        """Wait as long as the failure asks for; a 429 makes every process wait.

        Raises:
            PubNubError: the failure itself, where it is one too many.
        """
        tries = self._policy.tries
        if isinstance(error, ForbiddenError) or (
            tries is not None and self._backoff.failures + 1 >= tries
        ):
            raise error
        self._warning.failing(self, channel=self._channel, reason=str(error))
        wait = self._backoff.failed(error)
        if isinstance(error, ThrottledError):
            await self._policy.hold(wait)
        # Whoever asks outside the budget, for PubNub's clock, waits as well; the others have waited then.
        await asyncio.sleep(wait)


async def retry(call: Callable[[], Awaitable[Result]], channel: str, policy: RetryPolicy) -> Result:
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
