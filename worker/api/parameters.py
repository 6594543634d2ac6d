"""Parameters of requests. A wrong one is refused by its name; no answer quotes it."""

import re
from collections.abc import Collection
from typing import Final

from reaction_tally.arguments import TIMETOKEN_DIGITS
from reaction_tally.keys import is_position
from reaction_tally.who import read_after
from worker.web.problems import ProblemError
from worker.web.site import Call

MAX_TEXT: Final = 250
"""Characters of a channel, a user, a type or a value. PubNub allows fewer."""
MAX_AFTER: Final = MAX_TEXT + 21
"""A timetoken, a colon and a user."""
MAX_NUMBER_DIGITS: Final = 6
LARGEST_ID_PART: Final = 2**64 - 1
_TIMETOKEN: Final = re.compile("[0-9]{1,20}", re.ASCII)
_NUMBER: Final = re.compile(f"[0-9]{{1,{MAX_NUMBER_DIGITS}}}", re.ASCII)


class Parameters:
    """The parameters of one request."""

    def __init__(self, call: Call, known: Collection[str]) -> None:
        """Refuse parameters that are not ``known``."""
        self._query = call.query
        self._path = call.path
        for name in call.query:
            if name not in known:
                listed = ", ".join(known)
                raise ProblemError(400, f"A parameter is unknown. There are {listed}.")

    def channel(self) -> str:
        """Return the channel of the path."""
        return _bounded("channel", self._path["channel"])

    def timetoken(self) -> str:
        """Return the message timetoken of the path."""
        return _timetoken("timetoken", self._path["timetoken"])

    def timetokens(self, name: str, most: int) -> list[str]:
        """Return message timetokens, at least one."""
        values = self._some(name, most)
        if not values:
            raise ProblemError(400, "Name at least one message.", parameter=name)
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
        if text is None:
            raise ProblemError(400, "It is needed.", parameter=name)
        return text

    def number(self, name: str, default: int, least: int, most: int) -> int:
        """Return a whole number."""
        text = self.text(name)
        if text is None:
            return default
        if not _NUMBER.fullmatch(text) or not least <= int(text) <= most:
            detail = f"It is a whole number from {least} to {most}."
            raise ProblemError(400, detail, parameter=name)
        return int(text)

    def since(self) -> str | None:
        """Return the oldest timetoken."""
        text = self.text("since")
        if text is not None and not (_TIMETOKEN.fullmatch(text) and len(text) == TIMETOKEN_DIGITS):
            detail = f"It is a timetoken of {TIMETOKEN_DIGITS} digits."
            raise ProblemError(400, detail, parameter="since")
        return text

    def after(self) -> str | None:
        """Return the ``after`` of a page of ``who``."""
        text = self.text("after", MAX_AFTER)
        if text is not None and read_after(text) is None:
            detail = "It is the member `after` of another page."
            raise ProblemError(400, detail, parameter="after")
        return text

    def _some(self, name: str, most: int) -> list[str]:
        values = self._query.get(name, [])
        if len(values) > most:
            times = "once" if most == 1 else f"{most} times"
            raise ProblemError(400, f"It may stand {times} at most.", parameter=name)
        return values


def is_entry_id(text: str) -> bool:
    """Tell whether Redis takes a text as the id of an entry."""
    if not is_position(text):
        return False
    return all(int(part) <= LARGEST_ID_PART for part in text.split("-"))


def _bounded(name: str, text: str, longest: int = MAX_TEXT) -> str:
    if len(text) > longest:
        raise ProblemError(400, f"It has more than {longest} characters.", parameter=name)
    return text


def _timetoken(name: str, text: str) -> str:
    if not _TIMETOKEN.fullmatch(text):
        raise ProblemError(400, "A timetoken has 1 to 20 digits.", parameter=name)
    return text
