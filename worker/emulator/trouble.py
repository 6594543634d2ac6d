"""Requests that fail: refused names, outages, faults."""

from collections.abc import Callable, Iterable, Mapping
from typing import Final

from worker.emulator.faults import Fault, Faults
from worker.emulator.replies import (
    DROPPED,
    Reply,
    actions_error,
    forbidden,
    html_reply,
    json_reply,
    service_error,
    throttled,
)
from worker.emulator.subscription import Subscription

OUTAGE_OPERATIONS: Final = ("subscribe", "actions", "time", "groups")
"""The requests that an outage can strike. ``actions`` is the list."""

_OUTAGES: Final[Mapping[str, Reply]] = {
    "html": html_reply(200, "Welcome to the hotel"),
    "empty_object": json_reply({}),
    "list": json_reply([1, 2]),
    "server_error": html_reply(503, "Service Unavailable"),
    "throttle": throttled(1),
    "drop": DROPPED,
}
OUTAGE_KINDS: Final = tuple(_OUTAGES)

_NO_PERSISTENCE: Final = service_error(
    403,
    "Use of the history API requires the Message Persistence "
    "which is not enabled for this subscribe key.",
    "Storage",
)
_FAULTY: Final = frozenset({"subscribe", "actions", "time"})
"""The requests with faults. Users who write need not retry."""


class Trouble:
    """Answers the requests that fail.

    Refusals and outages last until they are ended, for open polls, too.
    A fault strikes one request.
    """

    def __init__(self, faults: Faults, changed: Callable[[], None]) -> None:
        """``changed`` is called at the begin and end of what lasts."""
        self._faults = faults
        self._changed = changed
        self._refused: frozenset[str] = frozenset()
        self._outage: Reply | None = None
        self._operations: frozenset[str] = frozenset()
        self._token: str | None = None
        self._is_persistent = True

    def refuse(self, channels: Iterable[str] = (), groups: Iterable[str] = ()) -> None:
        """Answer 403 for exactly these names from now on."""
        refused = Subscription(tuple(channels), tuple(groups))
        self._refused = frozenset(refused.topics())
        self._changed()

    def demand_token(self, token: str | None) -> None:
        """Answer 403 to other access tokens from now on. None accepts all."""
        self._token = token
        self._changed()

    def switch_persistence(self, *, is_on: bool) -> None:
        """Keep history, or answer 403 to who asks for it."""
        self._is_persistent = is_on
        self._changed()

    def set_outage(
        self,
        kind: str | None,
        operations: Iterable[str] = OUTAGE_OPERATIONS,
    ) -> None:
        """Begin an outage (``OUTAGE_KINDS``) of these operations. None ends it."""
        self._operations = frozenset(operations)
        known = [*OUTAGE_KINDS, *OUTAGE_OPERATIONS]
        unknown = {kind, *self._operations}.difference(known, {None})
        if unknown:
            words = ", ".join(map(str, unknown))
            raise ValueError(f"unknown outage: {words}; the known ones are {', '.join(known)}")
        self._outage = _OUTAGES.get(kind or "")
        self._changed()

    def lasting(
        self,
        operation: str,
        names: Subscription,
        token: str | None = None,
    ) -> Reply | None:
        """Return the reply of an outage or a refusal, if there is one."""
        if self._outage and operation in self._operations:
            return self._outage
        if operation == "actions" and not self._is_persistent:
            return _NO_PERSISTENCE
        topics = names.topics()
        if topics and self._token not in {None, token}:
            return service_error(403, "Token is expired.")
        refused = list(filter(self._refused.__contains__, topics))
        return forbidden(refused) if refused else None

    def passing(self, operation: str, names: Subscription) -> Reply | None:
        """Return the reply of a request fault, if one strikes."""
        if operation not in _FAULTY:
            return None
        random = self._faults.random
        replies: dict[Fault, Callable[[], Reply]] = {
            Fault.FORBIDDEN: lambda: self._forbidden(operation, names),
            Fault.THROTTLE: lambda: throttled(random.randint(1, 2)),
            Fault.SERVER_ERROR: lambda: html_reply(random.choice((500, 502, 503)), "Bad Gateway"),
            Fault.BAD_JSON: lambda: Reply(200, b'{"t":{"t":"1758'),
            Fault.DROP: lambda: DROPPED,
        }
        strike = next(filter(self._faults.strikes, replies), None)
        return replies[strike]() if strike else None

    def _forbidden(self, operation: str, names: Subscription) -> Reply:
        random = self._faults.random
        if operation == "actions" and random.random() < 0.5:
            return actions_error(403, "Forbidden")
        topics = names.topics()
        return forbidden([random.choice(topics)] if topics else [])
