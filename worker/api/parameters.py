"""Parameters of requests. A wrong one is refused by its name; no answer quotes it."""

import re
from collections.abc import Callable, Collection
from typing import Final

from reaction_tally.arguments import TIMETOKEN_DIGITS
from reaction_tally.keys import is_position
from reaction_tally.who import read_after
from worker.web.problems import require
from worker.web.site import Call

MAX_TEXT: Final = 250
"""Characters of a channel, a user, a type or a value. PubNub allows fewer."""
MAX_AFTER: Final = MAX_TEXT + 21
"""A timetoken, a colon and a user."""
MAX_NUMBER_DIGITS: Final = 6
LARGEST_ID_PART: Final = 2**64 - 1
_TIMETOKEN: Final = re.compile("[0-9]{1,20}")
_WHOLE_TIMETOKEN: Final = re.compile(f"[0-9]{{{TIMETOKEN_DIGITS}}}")
_NUMBER: Final = re.compile(f"[0-9]{{1,{MAX_NUMBER_DIGITS}}}")


class Parameters:
    """The parameters of one request."""

    def __init__(self, call: Call, known: Collection[str]) -> None:
        """Refuse parameters that are not ``known``."""
        self._query = call.query
        self._path = call.path
        is_known = call.query.keys() <= set(known)
        require(is_known, f"A parameter is unknown. There are {', '.join(known)}.")

    def channel(self) -> str:
        """Return the channel of the path."""
        return _bounded("channel", self._path["channel"])

    def timetoken(self) -> str:
        """Return the message timetoken of the path."""
        return _timetoken("timetoken", self._path["timetoken"])

    def timetokens(self, name: str, most: int) -> list[str]:
        """Return message timetokens, at least one."""
        values = self._some(name, most)
        require(values, "name at least one message.", name)
        return [_timetoken(name, value) for value in values]

    def texts(self, name: str, most: int) -> list[str]:
        """Return all values of a parameter."""
        return [_bounded(name, value) for value in self._some(name, most)]

    def text(self, name: str, longest: int = MAX_TEXT) -> str | None:
        """Return the value of a parameter that may be left out."""
        values = self._some(name, 1)
        return _bounded(name, values[0], longest) if values else None

    def needed(self, name: str) -> str:
        """Return the value of a parameter that may not be left out."""
        text = self.text(name)
        require(text is not None, "this parameter is needed.", name)
        return text or ""

    def number(self, name: str, default: int, least: int, most: int) -> int:
        """Return a whole number."""
        detail = f"a whole number from {least} to {most} is needed."
        text = self._checked(name, _NUMBER.fullmatch, detail)
        number = default if text is None else int(text)
        require(least <= number <= most, detail, name)
        return number

    def since(self) -> str | None:
        """Return the oldest timetoken."""
        detail = f"a timetoken of {TIMETOKEN_DIGITS} digits is needed."
        return self._checked("since", _WHOLE_TIMETOKEN.fullmatch, detail)

    def after(self) -> str | None:
        """Return the ``after`` of a page of ``who``."""
        detail = "the member `after` of another page is needed."
        return self._checked("after", read_after, detail, MAX_AFTER)

    def _checked(
        self,
        name: str,
        read: Callable[[str], object],
        detail: str,
        longest: int = MAX_TEXT,
    ) -> str | None:
        """Return a text that ``read`` can read."""
        text = self.text(name, longest)
        require(text is None or read(text) is not None, detail, name)
        return text

    def _some(self, name: str, most: int) -> list[str]:
        values = self._query.get(name, [])
        require(len(values) <= most, f"there may be {most} at most.", name)
        return values


def is_entry_id(text: str) -> bool:
    """Tell whether Redis takes a text as the id of an entry."""
    if not is_position(text):
        return False
    return all(int(part) <= LARGEST_ID_PART for part in text.split("-"))


def _bounded(name: str, text: str, longest: int = MAX_TEXT) -> str:
    require(len(text) <= longest, f"more than {longest} characters are too many.", name)
    return text


def _timetoken(name: str, text: str) -> str:
    require(_TIMETOKEN.fullmatch(text), "a timetoken has 1 to 20 digits.", name)
    return text
