"""The bodies of PubNub's answers with status 200, checked for their shape.

Each function takes the name of the request, for error texts, and the body
as decoded JSON. A body of another shape raises ``PubNubError``.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from worker.domain.position import Cursor, Timetoken
from worker.errors import PubNubError

_TIMETOKEN: Final = re.compile(r"(?=0*[1-9])[0-9]{1,20}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer to a poll.

    ``cursor`` is PubNub's own, verbatim.
    ``messages`` are decoded JSON, unchecked.
    """

    cursor: Cursor
    messages: tuple[object, ...]


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a channel's actions, as decoded JSON, ascending.

    ``more_start`` is the start of the next page if PubNub names it.
    """

    actions: tuple[object, ...]
    more_start: str | None


def read_answer(request: str, body: object) -> Answer:
    """Return the answer to a poll."""
    cursor = _cursor(as_object(body).get("t"))
    if cursor is None:
        raise _odd(request, "no cursor")
    messages = as_object(body).get("m")
    if not isinstance(messages, list):
        raise _odd(request, "no list of messages")
    return Answer(cursor, tuple(messages))


def _cursor(position: object) -> Cursor | None:
    fields = as_object(position)
    timetoken = _timetoken(fields.get("t"))
    region = fields.get("r", 0)
    if timetoken is None or type(region) is not int:
        return None
    return Cursor(timetoken, region)


def read_page(request: str, body: object) -> Page:
    """Return one page of a channel's actions."""
    fields = as_object(body)
    actions = fields.get("data")
    has_failed = fields.get("error") or fields.get("status", 200) != 200
    if has_failed or not isinstance(actions, list):
        raise _odd(request, "no list of actions")
    if fields.get("more") is None:
        return Page(tuple(actions), None)
    start = _timetoken(as_object(fields["more"]).get("start"))
    if start is None:
        raise _odd(request, "a `more` without its start")
    return Page(tuple(actions), start)


def read_channels(request: str, body: object) -> tuple[str, ...]:
    """Return the channels of a channel group."""
    payload = as_object(as_object(body).get("payload"))
    names = payload.get("channels")
    if not isinstance(names, list):
        raise _odd(request, "no list of channels")
    if not all(isinstance(name, str) for name in names):
        raise _odd(request, "a channel that is not text")
    return tuple(names)


def read_time(request: str, body: object) -> Timetoken:
    """Return the time of PubNub's clock."""
    values = body if isinstance(body, list) else []
    timetoken = _timetoken(next(iter(values), None))
    if timetoken is None:
        raise _odd(request, "no timetoken")
    return timetoken


def as_object(value: object) -> Mapping[str, object]:
    """Return a JSON object, or an empty one for anything else."""
    return value if isinstance(value, dict) else {}


def _timetoken(value: object) -> str | None:
    """Return the digits of a timetoken that is text or an integer, not zero."""
    digits = str(value) if isinstance(value, str | int) else ""
    return digits if _TIMETOKEN.fullmatch(digits) else None


def _odd(request: str, problem: str) -> PubNubError:
    return PubNubError(f"PubNub, {request}: answered 200 with {problem} in it.", status=200)
