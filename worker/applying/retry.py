"""How long PubNub's history is asked again and again before a failure is somebody else's business."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol, Self, TypeVar

import structlog

from worker.domain.position import Timetoken
from worker.errors import ForbiddenError, PubNubError, ThrottledError
from worker.source.pace import Backoff
from worker.source.wire import Interest
from worker.store.marks import Progress
from worker.telemetry.complaints import Complaint

Result = TypeVar("Result")
log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Terms:
    """How history is read. A 403 ends it, and so do ``tries`` failures in a row (None: they never do)."""

    interest: Interest
    backoff: Callable[[], Backoff]
    hold: Callable[[float], Awaitable[None]]
    clock: Callable[[], float]
    settle_seconds: float
    tries: int | None = None
    complaint: Complaint | None = None
    """Shared by all channels: they would complain of the same PubNub."""


class Watch(Protocol):
    """Somebody who looks on."""

    def expect(self, channel: str, oldest: Timetoken | None) -> None:
        """Hear where a channel's actions begin, as far as anyone can tell, before it is replayed."""

    def reach(self, channel: str, place: Progress) -> None:
        """Hear a channel's place after each page."""


def waiting(clock: Callable[[], float]) -> Complaint:
    """Return a complaint that PubNub does not answer questions about history."""
    return Complaint(log, "history_waits", "history_goes_on", clock)


class Patience:
    """Waits after PubNub's failures, for one channel, while this is open."""

    def __init__(self, channel: str, terms: Terms) -> None:
        self._channel = channel
        self._terms = terms
        self._backoff = terms.backoff()
        self._complaint = terms.complaint or waiting(terms.clock)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._complaint.forget(self)

    def succeeded(self) -> None:
        """Note that PubNub answered."""
        self._backoff.succeeded()
        self._complaint.over(self)

    async def after(self, error: PubNubError) -> None:
        """Wait as long as the failure asks for; a 429 makes every process wait.

        Raises:
            PubNubError: the failure itself, where it is one too many.
        """
        tries = self._terms.tries
        if isinstance(error, ForbiddenError) or (tries is not None and self._backoff.failures + 1 >= tries):
            raise error
        self._complaint.say(self, channel=self._channel, reason=str(error))
        wait = self._backoff.failed(error)
        if isinstance(error, ThrottledError):
            await self._terms.hold(wait)
        # Whoever asks outside the budget, for PubNub's clock, waits as well; the others have waited then.
        await asyncio.sleep(wait)


async def patiently(call: Callable[[], Awaitable[Result]], channel: str, terms: Terms) -> Result:
    """Return what the call returns, trying again as the terms say.

    Raises:
        PubNubError: it failed too often, or PubNub refused.
    """
    with Patience(channel, terms) as patience:
        while True:
            try:
                result = await call()
            except PubNubError as error:
                await patience.after(error)
            else:
                patience.succeeded()
                return result
