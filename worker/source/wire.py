"""One payload of PubNub's → one event, a malformed event with its reason, or something that is not ours."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from worker.domain.action import Added, Identity, Observed, Removed
from worker.domain.position import Timetoken
from worker.errors import ConfigurationError, MalformedError
from worker.source import names

ACTION_KINDS: Final = (3, "3")
MAX_BYTES: Final = 32_768
"""PubNub's limit for a whole request: no type, value or uuid it accepted can be longer."""
KNOWN_TEXTS: Final = 16_384
"""Names of channels, and types and values, that are remembered as fit: events share few of them."""
MAX_KNOWN: Final = 300
"""Characters of a channel, a type and a value together beyond which they are not remembered."""
_SHOWN: Final = 4_096

MAX_DIGITS: Final = 20
_KINDS: Final[Mapping[str, type[Added] | type[Removed]]] = {"added": Added, "removed": Removed}
_ACTION_TIMETOKEN: Final = re.compile(rf"[1-9][0-9]{{0,{MAX_DIGITS - 1}}}", re.ASCII)
_MESSAGE_TIMETOKEN: Final = re.compile(rf"[0-9]{{1,{MAX_DIGITS}}}", re.ASCII)


@dataclass(frozen=True, slots=True)
class CountedTypes:
    """Which action types are counted: the chosen ones (none chosen: all), less the ignored."""

    types: frozenset[str] = frozenset()
    ignored: frozenset[str] = frozenset()

    def __contains__(self, type: str) -> bool:
        return type not in self.ignored and (not self.types or type in self.types)

    def __str__(self) -> str:
        if self.types:
            return "only " + ",".join(sorted(self.types - self.ignored))
        return "all types" + (" but " + ",".join(sorted(self.ignored)) if self.ignored else "")


@dataclass(frozen=True, slots=True)
class Malformed:
    """What could not be understood: where, why, and its JSON, cut to a readable length."""

    channel: str
    reason: str
    payload: str


Decoded = Observed | Malformed | None


def decode_message(message: object, counted_types: CountedTypes) -> Decoded:
    """Return the event in one element of a subscribe answer's ``m``; None for any other kind of message.

    A message that is no object at all is malformed. The user is ``data.uuid`` where there is one, else ``i``.
    """
    if not isinstance(message, dict):
        return Malformed("", "the message is not an object", _shown(message))
    if message.get("e") not in ACTION_KINDS:
        return None
    try:
        return decode_fast(message, counted_types)
    except UnusualError:
        return decode_checked(message, counted_types)


class UnusualError(Exception):
    """Something about a message needs a closer look."""


def decode_fast(message: Mapping[str, Any], counted_types: CountedTypes) -> Observed | None:
    """Return the event in a message as PubNub sends them, at a third of what looking at each part by itself takes.

    Raises:
        UnusualError: look into it. What is returned instead is what that would return.
    """
    try:
        payload, channel, user, told = message["d"], message["c"], message["i"], message["p"]["t"]
        kind, held = _KINDS[payload["event"]], payload["data"]
        type, value = held["type"], held["value"]
        at, of = held["actionTimetoken"], held["messageTimetoken"]
        digits = at + told + of
        if (
            digits.isdigit()
            and (digits + user).isascii()
            and at[0] != "0" != told[0]
            and 0 < len(of) <= MAX_DIGITS >= len(at)
            and len(told) <= MAX_DIGITS
            and len(user) <= MAX_BYTES
            and len(channel + type + value) <= MAX_KNOWN
            and "uuid" not in held
        ):
            identity = Identity(_allowed(_fit(channel)), of, _fit(type), _fit(value), user)
            return kind(identity, at, told) if type in counted_types else None
    except (LookupError, TypeError, AttributeError, MalformedError, ConfigurationError):
        pass  # not even of the usual shape
    raise UnusualError


def decode_checked(message: Mapping[str, object], counted_types: CountedTypes) -> Decoded:
    """Return the event in a message of an action, part by part, or what is wrong with it."""
    try:
        return _announced(message, counted_types)
    except MalformedError as error:
        name = message.get("c")
        return Malformed(name if isinstance(name, str) else "", str(error), _shown(message))


def decode_action(channel: str, action: object, counted_types: CountedTypes) -> Decoded:
    """Return the addition in one item of a get-actions page; None for a type that is not counted."""
    if not isinstance(action, dict):
        return Malformed(channel, "the action is not an object", _shown(action))
    try:
        return _event(
            channel, action, action.get("uuid"), counted_types, removed=False, published=None
        )
    except MalformedError as error:
        return Malformed(channel, str(error), _shown(action))


def action_timetoken(action: object) -> Timetoken | None:
    """Return an item's action timetoken, for paging; None if it has none that can be read."""
    try:
        return (
            _timetoken(action, "actionTimetoken", _ACTION_TIMETOKEN)
            if isinstance(action, dict)
            else None
        )
    except MalformedError:
        return None


def _announced(message: Mapping[str, object], counted_types: CountedTypes) -> Observed | None:
    channel, payload = _channel(message), _object(message, "d")
    kind = payload.get("event")
    if kind not in ("added", "removed"):
        raise MalformedError(f"the event is {str(kind)[:40]!r}, neither added nor removed")
    data = _object(payload, "data")
    user = data.get("uuid")
    who = message.get("i") if user is None else user
    return _event(
        channel, data, who, counted_types, removed=kind == "removed", published=_reply(message)
    )


def _event(
    channel: str,
    data: Mapping[str, object],
    user: object,
    counted_types: CountedTypes,
    *,
    removed: bool,
    published: Timetoken | None,
) -> Observed | None:
    type = _text("type", data.get("type"))
    if type not in counted_types:
        return None
    at = _timetoken(data, "actionTimetoken", _ACTION_TIMETOKEN)
    message = _timetoken(data, "messageTimetoken", _MESSAGE_TIMETOKEN)
    identity = Identity(
        channel, message, type, _text("value", data.get("value")), _text("uuid", user)
    )
    return (Removed if removed else Added)(identity, at, published or at)


def _reply(message: Mapping[str, object]) -> Timetoken | None:
    """Return ``p.t``; it only dates the event, so one that cannot be read is no reason to lose the event."""
    published = message.get("p")
    if not isinstance(published, dict):
        return None
    try:
        return _timetoken(published, "t", _ACTION_TIMETOKEN)
    except MalformedError:
        return None


def _channel(message: Mapping[str, object]) -> str:
    """Return ``c``, if PubNub can be asked about it: whatever is met here has its history replayed."""
    try:
        return _allowed(_text("c", message.get("c")))
    except ConfigurationError as error:
        raise MalformedError(f"c is no channel name: {error}") from None


@lru_cache(KNOWN_TEXTS)
def _fit(text: object) -> str:
    """Return a text that comes again and again: a type, a value, a channel."""
    return _text("it", text)


@lru_cache(KNOWN_TEXTS)
def _allowed(name: str) -> str:
    return names.channel(name)


def _object(holder: Mapping[str, object], key: str) -> Mapping[str, object]:
    value = holder.get(key)
    if not isinstance(value, dict):
        raise MalformedError(f"{key} {_what(value)} where an object belongs")
    return value


def _text(key: str, value: object) -> str:
    if (
        isinstance(value, str) and value.isascii() and len(value) <= MAX_BYTES
    ):  # a byte each, and no surrogate
        return value
    if not isinstance(value, str):
        raise MalformedError(f"{key} {_what(value)} where text belongs")
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        raise MalformedError(f"{key} holds a lone surrogate, which UTF-8 cannot carry") from None
    if size > MAX_BYTES:
        raise MalformedError(f"{key} has {size} bytes; PubNub accepts no more than {MAX_BYTES}")
    return value


def _timetoken(holder: Mapping[str, object], key: str, form: re.Pattern[str]) -> Timetoken:
    """Return digits; a JSON integer has lost none, so it will do, but a float has."""
    value = holder.get(key)
    if isinstance(value, str) and form.fullmatch(value):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str):
        raise MalformedError(f"{key} {_what(value)} where a timetoken belongs")
    if not form.fullmatch(value):
        raise MalformedError(f"{key} is {value[:40]!r}, not a timetoken")
    return value


def _what(value: object) -> str:
    return "is missing" if value is None else f"is of type {type(value).__name__}"


def _shown(payload: object) -> str:
    try:
        return json.dumps(payload, ensure_ascii=True)[:_SHOWN]
    except RecursionError:  # what could just be read can be too deep to write
        return '"nested too deeply to show"'
