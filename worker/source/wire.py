"""One payload of PubNub becomes an event, or a malformed one with its reason.

Other kinds of messages become None.
"""

import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Annotated, Final

import msgspec
from msgspec import Meta, Struct

from worker.domain.action import Added, Identity, Observed, Removed
from worker.domain.position import Timetoken
from worker.errors import ConfigurationError, MalformedError
from worker.source import names
from worker.source.answers import MAX_BYTES, Answer, Message, UsualText, as_object

ACTION_KIND: Final = 3
KNOWN_CHANNELS: Final = 16_384
"""The channels whose check is cached."""
MAX_DIGITS: Final = 20
ACTION_TIMETOKEN: Final = re.compile(rf"[1-9][0-9]{{0,{MAX_DIGITS - 1}}}", re.ASCII)
MESSAGE_TIMETOKEN: Final = re.compile(rf"[0-9]{{1,{MAX_DIGITS}}}", re.ASCII)
"""PubNub does not check the timetoken of a message."""
_KINDS: Final[Mapping[str, type[Added] | type[Removed]]] = {"added": Added, "removed": Removed}
_SHOWN: Final = 4_096


@dataclass(frozen=True, slots=True)
class CountedTypes:
    """The counted action types: ``types``, or all, without ``ignored``."""

    types: frozenset[str] = frozenset()
    ignored: frozenset[str] = frozenset()

    def __contains__(self, type: str) -> bool:
        return type not in self.ignored and (not self.types or type in self.types)

    def __str__(self) -> str:
        if self.types:
            return "only " + ",".join(sorted(self.types - self.ignored))
        if self.ignored:
            return "all types but " + ",".join(sorted(self.ignored))
        return "all types"


@dataclass(frozen=True, slots=True)
class Malformed:
    """A payload that cannot be understood, as JSON of a readable length.

    ``channel`` is empty if it is unknown.
    """

    channel: str
    reason: str
    payload: str
    users: tuple[str, ...] = field(default=(), compare=False, repr=False)
    """The users whom it names where a user belongs."""


Decoded = Observed | Malformed | None


def decode_answer(
    answer: Answer,
    counted_types: CountedTypes,
) -> Sequence[Observed | Malformed]:
    """Return the events in a subscribe answer, in order.

    Other kinds of messages, and other types of actions, are left out.
    """
    try:
        return decode_usual(answer, counted_types)
    except UnusualError:
        decoded = [decode_message(message, counted_types) for message in answer.messages()]
        return [item for item in decoded if item]


class UnusualError(Exception):
    """An answer needs ``decode_message`` for each of its messages."""


_Digits = Annotated[str, Meta(min_length=1, max_length=MAX_DIGITS)]


class _Action(Struct, gc=False, rename="camel"):
    type: UsualText
    value: UsualText
    action_timetoken: _Digits
    message_timetoken: _Digits
    uuid: UsualText | None = None


class _Payload(Struct, gc=False):
    event: str
    data: _Action


_decode_payload: Final = msgspec.json.Decoder(_Payload).decode
_UNUSUAL: Final = (LookupError, ConfigurationError, msgspec.DecodeError, RecursionError)
"""What a field that is missing, or has another form, leads to."""


def decode_usual(
    answer: Answer,
    counted_types: CountedTypes,
) -> list[Observed]:
    """Return the events of an answer whose messages all have PubNub's usual form.

    It is several times faster than ``decode_message``, with the same result.

    Raises:
        UnusualError: One of the messages has another form.
    """
    if answer.usual is None:
        raise UnusualError
    actions = [message for message in answer.usual if message.e == ACTION_KIND]
    try:
        payloads = [_decode_payload(message.d) for message in actions]
        events = list(map(_usual_event, actions, payloads))
    except _UNUSUAL:
        raise UnusualError from None
    _check_timetokens(events)
    types = {payload.data.type for payload in payloads}
    counted = set(filter(counted_types.__contains__, types))
    return [event for event in events if event.identity.type in counted]


def _usual_event(message: Message, payload: _Payload) -> Observed:
    data = payload.data
    user = message.i if data.uuid is None else data.uuid
    if user is None or message.p is None:
        raise UnusualError
    channel = _known_channel(message.c)
    identity = Identity(channel, data.message_timetoken, data.type, data.value, user)
    return _KINDS[payload.event](identity, data.action_timetoken, message.p.t)


def _check_timetokens(events: Sequence[Observed]) -> None:
    """Check the timetokens of a whole answer at once: that is quicker than one by one.

    Raises:
        UnusualError: One of them is not a number, or begins with 0.
    """
    parents = [event.identity.message_timetoken for event in events]
    others = [event.action_timetoken for event in events]
    others += [event.published for event in events]
    # With a "1", because an answer may have no event.
    digits = "".join(["1", *parents, *others])
    if not digits.encode().isdigit() or min(others, default="1") < "1":
        raise UnusualError


def decode_message(message: object, counted_types: CountedTypes) -> Decoded:
    """Return the event in one element of a subscribe answer's ``m``.

    Returns None for any other kind of message. The user is ``data.uuid``
    if it is there, and ``i`` otherwise.
    """
    if not isinstance(message, dict):
        return Malformed("", "the message is not an object", _as_json(message))
    if message.get("e") not in (ACTION_KIND, str(ACTION_KIND)):
        return None
    try:
        return _message_event(message, counted_types)
    except MalformedError as error:
        channel = message.get("c")
        known = channel if isinstance(channel, str) else ""
        users = (message.get("i"), _data_of(message).get("uuid"))
        return Malformed(known, str(error), _as_json(message), _names(*users))


def decode_action(
    channel: str,
    action: object,
    counted_types: CountedTypes,
) -> Decoded:
    """Return the addition in an item of history, if its type is counted."""
    if not isinstance(action, dict):
        return Malformed(channel, "the action is not an object", _as_json(action))
    try:
        identity = _identity(channel, action, action.get("uuid"), counted_types)
        if identity is None:
            return None
        timetoken = _timetoken(action, "actionTimetoken", ACTION_TIMETOKEN)
    except MalformedError as error:
        return Malformed(channel, str(error), _as_json(action), _names(action.get("uuid")))
    return Added(identity, timetoken, timetoken)


def action_timetoken(action: object) -> Timetoken | None:
    """Return an item's action timetoken; None if unreadable."""
    return _readable_timetoken(action, "actionTimetoken")


def _readable_timetoken(holder: object, key: str) -> Timetoken | None:
    if isinstance(holder, dict):
        with suppress(MalformedError):
            return _timetoken(holder, key, ACTION_TIMETOKEN)
    return None


def _message_event(
    message: Mapping[str, object],
    counted_types: CountedTypes,
) -> Observed | None:
    channel = _channel(message)
    payload = _object(message, "d")
    event = str(payload.get("event"))
    kind = _KINDS.get(event)
    if kind is None:
        raise MalformedError(f"the event is {event[:40]!r}, neither added nor removed")
    data = _object(payload, "data")
    user = data.get("uuid")
    if user is None:
        user = message.get("i")
    identity = _identity(channel, data, user, counted_types)
    if identity is None:
        return None
    timetoken = _timetoken(data, "actionTimetoken", ACTION_TIMETOKEN)
    # The time of publishing only dates the event.
    published = _readable_timetoken(message.get("p"), "t")
    return kind(identity, timetoken, published or timetoken)


def _identity(
    channel: str,
    data: Mapping[str, object],
    user: object,
    counted_types: CountedTypes,
) -> Identity | None:
    type = _text("type", data.get("type"))
    if type not in counted_types:
        return None
    return Identity(
        channel,
        _timetoken(data, "messageTimetoken", MESSAGE_TIMETOKEN),
        type,
        _text("value", data.get("value")),
        _text("uuid", user),
    )


def _channel(message: Mapping[str, object]) -> str:
    try:
        return _known_channel(_text("c", message.get("c")))
    except ConfigurationError as error:
        raise MalformedError(f"c is no channel name: {error}") from None


def _data_of(message: Mapping[str, object]) -> Mapping[str, object]:
    return as_object(as_object(message.get("d")).get("data"))


def _names(*users: object) -> tuple[str, ...]:
    return tuple(user for user in users if isinstance(user, str))


def _object(payload: Mapping[str, object], key: str) -> Mapping[str, object]:
    value = payload.get(key)
    if not isinstance(value, dict):
        raise MalformedError(f"{key} {_kind(value)} where an object belongs")
    return value


def _text(key: str, value: object) -> str:
    if not isinstance(value, str):
        raise MalformedError(f"{key} {_kind(value)} where text belongs")
    try:
        size = len(value) if value.isascii() else len(value.encode())
    except UnicodeEncodeError:
        raise MalformedError(f"{key} holds a lone surrogate, which UTF-8 cannot carry") from None
    if size > MAX_BYTES:
        raise MalformedError(f"{key} has {size} bytes; PubNub accepts no more than {MAX_BYTES}")
    return value


def _timetoken(data: Mapping[str, object], key: str, form: re.Pattern[str]) -> Timetoken:
    value = data.get(key)
    if type(value) is int:  # a float has lost some digits
        value = str(value)
    if not isinstance(value, str):
        raise MalformedError(f"{key} {_kind(value)} where a timetoken belongs")
    if not form.fullmatch(value):
        raise MalformedError(f"{key} is {value[:40]!r}, not a timetoken")
    return value


def _as_json(payload: object) -> str:
    try:
        return json.dumps(payload, ensure_ascii=True)[:_SHOWN]
    except RecursionError:  # JSON can be read that is too deep to be written
        return '"nested too deeply to show"'


def _kind(value: object) -> str:
    if value is None:
        return "is missing"
    return f"is of type {type(value).__name__}"


_known_channel = lru_cache(KNOWN_CHANNELS)(names.channel)
