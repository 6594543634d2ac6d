"""The names PubNub refuses (403 or 400), and when to try them again."""

import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from logging import DEBUG, WARNING
from typing import Final

import structlog

from worker.errors import ForbiddenError, PubNubError
from worker.source.names import Names

REFUSED_SECONDS: Final = 60.0  # until a refused name is tried again
BAD_REQUEST: Final = 400
MOST_REJECTED: Final = 5
"""After more names with a 400 and none without, the request is at fault."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Refused:
    """These names missed events until now, because PubNub refuses them.

    Most of them are still refused. The same item comes again at
    every try; it ``is_new`` if the refused names have changed.
    """

    names: Names
    is_new: bool = True


@dataclass(frozen=True, slots=True)
class Readmitted:
    """PubNub accepts these names again. They missed the events until now."""

    names: Names


class Refusals:
    """The refused names of one subscription."""

    def __init__(self, names: Names, clock: Callable[[], float]) -> None:
        self._names = names
        self._clock = clock
        self._refused: frozenset[str] = frozenset()
        self._logged: frozenset[str] = frozenset()
        self.is_lifted = False
        """Whether a try succeeded. An answer for all names has yet to come."""
        self.retry_at = 0.0
        """When to try the refused names, in seconds of the clock."""

    def forget(self) -> None:
        """Poll all names again, and report a refusal again."""
        self._refused = frozenset()
        self.is_lifted = False

    def __bool__(self) -> bool:
        return bool(self._refused)

    @property
    def refused(self) -> Names:
        """The names that PubNub refuses."""
        return self._names.only(self._refused)

    @property
    def accepted(self) -> Names:
        """The other names."""
        if not self._refused:
            return self._names
        return self._names.without(self._refused)

    @property
    def to_poll(self) -> Names:
        """The names of the next poll."""
        return self._names if self.is_lifted else self.accepted

    def add(self, error: PubNubError, names: frozenset[str], polled: Names) -> Refused:
        """Leave out these names, which were refused in a poll of ``polled``.

        Refused names that were not polled are still refused.
        """
        before = self._refused
        self._refused = names | (before - set(polled.all))
        self.is_lifted = False
        self.retry_later()
        is_new = self._refused != self._logged
        self._logged = self._refused
        log.log(
            WARNING if is_new else DEBUG,
            "pubnub_refused",
            names=sorted(self._refused),
            retry_seconds=REFUSED_SECONDS,
            reason=str(error),
        )
        # Names that just stopped being refused missed events, too.
        return Refused(self._names.only(before | self._refused), is_new)

    def retry_later(self) -> None:
        """Try the refused names again after a while."""
        self.retry_at = self._clock() + REFUSED_SECONDS

    def lift(self) -> None:
        """Poll all names from now on, because a try succeeded."""
        self.is_lifted = True

    def readmit(self) -> Readmitted:
        """Report that PubNub answered a poll of all names."""
        names = self.refused
        self.forget()
        self._logged = frozenset()
        log.info("pubnub_readmitted", names=sorted(names.all))
        return Readmitted(names)


async def find_refused(
    error: PubNubError,
    polled: Names,
    try_names: Callable[[Names], Awaitable[object]],
) -> frozenset[str]:
    """Return the names at fault for a 403 or a 400, as in ``Names.all``.

    If PubNub does not name them, each name is tried alone.
    If that finds none, all names count after a 403, none after a 400.
    """
    names = frozenset(polled.all)
    if error.status == BAD_REQUEST:
        return await _try_alone(error, polled, try_names)
    if not isinstance(error, ForbiddenError):
        return frozenset()
    groups = {f":{group}" for group in error.groups}
    named = names & (error.channels | groups)
    if named or len(names) == 1:
        return named or names
    return await _try_alone(error, polled, try_names) or names


async def _try_alone(
    error: PubNubError,
    polled: Names,
    try_names: Callable[[Names], Awaitable[object]],
) -> frozenset[str]:
    """Return the names that fail alone; none unless others are accepted."""
    most = MOST_REJECTED if error.status == BAD_REQUEST else math.inf
    refused: set[str] = set()
    is_any_accepted = False
    for single in polled.split(1):
        try:
            await try_names(single)
            is_any_accepted = True
        except PubNubError as answer:
            if answer.status != error.status:
                return frozenset()
            refused.update(single.all)
        if len(refused) > most and not is_any_accepted:
            break
    return frozenset(refused) if is_any_accepted else frozenset()
