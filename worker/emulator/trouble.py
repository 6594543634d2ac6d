"""What stands between a request and its answer: refused names, an outage, request faults."""

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

OPERATIONS: Final = (
    "subscribe",
    "actions",
    "add",
    "remove",
    "time",
    "groups",
    "publish",
    "signal",
    "presence",
)
"""What a request can be; `actions` is the list, `groups` covers channel groups."""

OUTAGE_OPERATIONS: Final = ("subscribe", "actions", "time", "groups")
"""What an outage strikes unless it is told otherwise."""

_OUTAGES: Final[Mapping[str, Callable[[], Reply]]] = {
    "html": lambda: html_reply(200, "Welcome to the hotel"),
    "empty_object": lambda: json_reply({}),
    "list": lambda: json_reply([1, 2]),
    "server_error": lambda: html_reply(503, "Service Unavailable"),
    "throttle": lambda: throttled(1),
    "drop": lambda: DROPPED,
}
OUTAGE_KINDS: Final = tuple(_OUTAGES)

_FAULTY: Final = frozenset({"subscribe", "actions", "time"})
"""Request faults other than latency spare the rest, so that a crowd that writes need not retry."""


class Trouble:
    """Answers requests that do not get through. Outages last until they are lifted; faults strike one request."""

    def __init__(self, faults: Faults) -> None:
        self._faults = faults
        self._refused = Subscription()
        self._outage: str | None = None
        self._struck: frozenset[str] = frozenset()
        self._token: str | None = None

    def refuse(self, channels: Iterable[str], groups: Iterable[str]) -> None:
        """Answer 403 to whoever asks for one of these names from now on; none for nobody."""
        self._refused = Subscription(tuple(channels), tuple(groups))

    def demand_token(self, token: str | None) -> None:
        """Answer 403 from now on to whoever asks for a name with another access token; None wants none."""
        self._token = token

    def set_outage(self, kind: str | None, operations: Iterable[str]) -> None:
        """Begin an outage of these operations, or end it with None. ValueError for an unknown kind or operation."""
        struck = frozenset(operations)
        if kind is not None and kind not in _OUTAGES:
            raise ValueError(
                f"unknown outage {kind!r}; the known ones are {', '.join(OUTAGE_KINDS)}"
            )
        if unknown := sorted(struck.difference(OPERATIONS)):
            raise ValueError(
                f"unknown operations {', '.join(unknown)}; the known ones are {', '.join(OPERATIONS)}"
            )
        self._outage, self._struck = kind, struck

    def lasting(
        self, operation: str, asked: Subscription, token: str | None = None
    ) -> Reply | None:
        """Return how an outage, another token or a refused name answers this request, None if none of them does."""
        if self._outage is not None and operation in self._struck:
            return _OUTAGES[self._outage]()
        if self._token not in {None, token} and (asked.channels or asked.groups):
            return service_error(403, "Token is expired.")
        channels = [name for name in asked.channels if name in self._refused.channels]
        groups = [name for name in asked.groups if name in self._refused.groups]
        return forbidden(channels, groups) if channels or groups else None

    def passing(self, operation: str, asked: Subscription) -> Reply | None:
        """Return how a request fault answers this request, None if none strikes."""
        if operation not in _FAULTY:
            return None
        if self._faults.strikes(Fault.FORBIDDEN):
            return self._forbid(operation, asked)
        if self._faults.strikes(Fault.THROTTLE):
            return throttled(self._faults.random.randint(1, 2))
        if self._faults.strikes(Fault.SERVER_ERROR):
            return html_reply(self._faults.random.choice((500, 502, 503)), "Bad Gateway")
        if self._faults.strikes(Fault.BAD_JSON):
            return Reply(200, b'{"t":{"t":"1758')
        return DROPPED if self._faults.strikes(Fault.DROP) else None

    def _forbid(self, operation: str, asked: Subscription) -> Reply:
        if operation == "actions" and self._faults.random.random() < 0.5:
            return actions_error(403, "Forbidden")
        names = [(name, None) for name in asked.channels] + [(None, name) for name in asked.groups]
        if not names:
            return forbidden((), ())
        channel, group = self._faults.random.choice(names)
        return forbidden((channel,) if channel else (), (group,) if group else ())
