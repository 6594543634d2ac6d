"""Requests without HTTP."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import unquote

from worker.emulator.replies import RefusedError, invalid_input

LONGEST_UUID: Final = 64
"""Characters.

PubNub's page about *Add action* said 64 for years.
Today it says 92, as its other pages do.
"""
NUMBER: Final = re.compile(r"[0-9]{1,4300}")
"""Python reads no longer ones."""


@dataclass(frozen=True, slots=True)
class Call:
    """One request: named path segments, decoded query, body.

    The segments are still percent-encoded, because an encoded comma does
    not separate two names.
    """

    path: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    method: str = "GET"
    place: str = ""
    """The whole path, as it was sent: it is signed."""

    def text(self, name: str) -> str:
        """Return one path segment, decoded."""
        return unquote(self.path[name])

    def number(self, name: str) -> int:
        """Return one path segment that must be a number."""
        return _number(self.text(name), name, "path")

    def bound(self, name: str) -> int | None:
        """Return an optional query parameter that must be a number."""
        text = self.query.get(name)
        return None if text is None else _number(text, name, "query")

    def uuid(self) -> str:
        """Return the user, a required query parameter."""
        uuid = self.query.get("uuid")
        if not uuid:
            raise RefusedError(invalid_input("Missing field", ["uuid"], "query"))
        if len(uuid) > LONGEST_UUID:
            refusal = invalid_input("Too long", ["uuid"], "query")
            raise RefusedError(refusal)
        return uuid


def _number(text: str, location: str, location_type: str) -> int:
    if not NUMBER.fullmatch(text):
        raise RefusedError(invalid_input("Not a number", [location], location_type))
    return int(text)
