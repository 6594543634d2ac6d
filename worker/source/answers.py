"""The bodies of PubNub's answers with status 200, checked for their shape.

Each reader takes the name of the request, for error texts, and the body.
A body of another shape raises ``PubNubError``.
One that is not JSON raises ``ValueError``.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta, Raw, Struct

from worker.domain.position import Cursor, Timetoken
from worker.errors import PubNubError

MAX_BYTES: Final = 32_768
"""PubNub's limit for a request, so for each text in it."""
MAX_DIGITS: Final = 1_000
"""The longest whole number that Python is asked to convert."""
MAX_DEPTH: Final = 100
"""The levels that are kept of JSON too deep for Python's parser."""
_TOKEN: Final = re.compile(r'"(?:[^"\\]|\\.)*"|[\[\]{}]', re.DOTALL)
CLOCK_DIGITS: Final = 17
"""The digits of PubNub's time, until the year 2286."""
_TIMETOKEN: Final = re.compile(r"(?=0*[1-9])[0-9]{1,20}", re.ASCII)


def decode(content: bytes) -> object:
    """Return the decoded JSON.

    Users write most of it. One hostile message must not make the
    whole answer unreadable: bytes that are not UTF-8 become lone
    surrogates, a very long number stays text, very deep values are lost.

    Raises:
        ValueError: The bytes are not JSON.
    """
    text = content.decode("utf-8-sig", "surrogateescape")
    try:
        return json.loads(text, parse_int=_whole)
    except RecursionError:
        return json.loads(_shallow(text), parse_int=_whole)


def _whole(digits: str) -> int | str:
    return int(digits) if len(digits) <= MAX_DIGITS else digits


def _shallow(text: str) -> str:
    # Values below MAX_DEPTH become null.
    kept: list[str] = []
    depth = resumed = 0
    for token in _TOKEN.finditer(text):
        if token[0] in "[{":
            if depth == MAX_DEPTH:
                kept += (text[resumed : token.start()], "null")
            depth += 1
        elif token[0] in "]}":
            depth -= 1
            if depth == MAX_DEPTH:
                resumed = token.end()
    return "".join(kept) + text[resumed:]


UsualText = Annotated[str, Meta(max_length=MAX_BYTES // 4)]
"""A text whose bytes need not be counted: a character has four at most."""


class Published(Struct, gc=False):
    """When a message was published."""

    t: Annotated[str, Meta(min_length=1, max_length=20)]


class Message(Struct, gc=False):
    """A message of PubNub's usual form.

    It has a kind, a channel, a user, and a payload that is not decoded yet.
    """

    e: int = 0
    c: str = ""
    i: UsualText | None = None
    p: Published | None = None
    d: Raw = Raw(b"null")


class _Position(Struct):
    t: str
    r: int = 0


class _Usual(Struct):
    t: _Position
    m: list[Message]


_USUAL: Final = msgspec.json.Decoder(_Usual)


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to a poll: PubNub's own cursor, and messages, unchecked."""

    cursor: Cursor
    count: int
    """How many messages there are, of all kinds."""
    usual: Sequence[Message] | None = field(default=None, compare=False)
    """The messages; None if one of them has another form."""
    content: bytes = field(default=b"", repr=False, compare=False)

    def messages(self) -> tuple[object, ...]:
        """Return the messages as decoded JSON, whatever their form is."""
        return _messages("subscribe", as_object(decode(self.content)))


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a channel's actions, unchecked, ascending.

    ``more_start`` is the start of the next page if PubNub names it.
    """

    actions: tuple[object, ...]
    more_start: str | None


def read_answer(request: str, content: bytes) -> Answer:
    """Return the answer to a poll."""
    try:
        body = _USUAL.decode(content)
    except (msgspec.DecodeError, RecursionError):
        return _read_unusual(request, content)
    timetoken = _timetoken(request, body.t.t, "no cursor")
    return Answer(Cursor(timetoken, body.t.r), len(body.m), body.m, content)


def _read_unusual(request: str, content: bytes) -> Answer:
    fields = as_object(decode(content))
    position = as_object(fields.get("t"))
    timetoken = _timetoken(request, position.get("t"), "no cursor")
    region = position.get("r", 0)
    if type(region) is not int:
        raise _odd(request, "no cursor")
    messages = _messages(request, fields)
    return Answer(Cursor(timetoken, region), len(messages), None, content)


def _messages(request: str, fields: Mapping[str, object]) -> tuple[object, ...]:
    return _list(request, fields.get("m"), "no list of messages")


def read_page(request: str, content: bytes) -> Page:
    """Return one page of a channel's actions."""
    fields = as_object(decode(content))
    if fields.get("error") or fields.get("status", 200) != 200:
        raise _odd(request, "no list of actions")
    actions = _list(request, fields.get("data"), "no list of actions")
    more = fields.get("more")
    if more is None:
        return Page(actions, None)
    start = as_object(more).get("start")
    return Page(actions, _timetoken(request, start, "a `more` without its start"))


def read_channels(request: str, content: bytes) -> tuple[str, ...]:
    """Return the channels of a channel group."""
    payload = as_object(as_object(decode(content)).get("payload"))
    names = _list(request, payload.get("channels"), "no list of channels")
    if set(map(type, names)) - {str}:
        raise _odd(request, "a channel that is not text")
    return names


def read_time(request: str, content: bytes) -> Timetoken:
    """Return the time of PubNub's clock.

    A list of small numbers is another answer.
    """
    values = _list(request, decode(content), "no timetoken")
    time = _timetoken(request, next(iter(values), None), "no timetoken")
    if len(time) != CLOCK_DIGITS or time[0] == "0":
        raise _odd(request, "no timetoken")
    return time


def as_object(value: object) -> Mapping[str, object]:
    """Return a JSON object, or an empty one for anything else."""
    return value if isinstance(value, dict) else {}


def _list(request: str, value: object, problem: str) -> tuple[Any, ...]:
    if not isinstance(value, list):
        raise _odd(request, problem)
    return tuple(value)


def _timetoken(request: str, value: object, problem: str) -> Timetoken:
    digits = str(value)
    if not _TIMETOKEN.fullmatch(digits):
        raise _odd(request, problem)
    return digits


def _odd(request: str, problem: str) -> PubNubError:
    return PubNubError(f"PubNub, {request}: answered 200 with {problem} in it.", status=200)
