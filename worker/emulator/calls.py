"""A request without HTTP around it, and the table that finds who answers it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar
from urllib.parse import unquote

from worker.emulator.replies import RefusedError, invalid_input, service_error

Endpoint = TypeVar("Endpoint")


@dataclass(frozen=True, slots=True)
class Call:
    """One request: the named path segments as they came, the decoded query, the body.

    Segments stay percent-encoded until they are asked for, because a comma inside a name is not one between names.
    """

    path: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""

    def text(self, name: str) -> str:
        """Return one path segment, decoded."""
        return unquote(self.path[name])

    def number(self, name: str) -> int:
        """Return one path segment that must be a number."""
        return _number(self.text(name), name, "path")

    def bound(self, name: str) -> int | None:
        """Return a query parameter that must be a number if it is there, None if it is not."""
        text = self.query.get(name)
        return None if text is None else _number(text, name, "query")

    def uuid(self) -> str:
        """Return the user, whom PubNub requires in the query."""
        uuid = self.query.get("uuid")
        if not uuid:
            raise RefusedError(invalid_input("Missing field", ["uuid"], "query"))
        return uuid


def _number(text: str, location: str, location_type: str) -> int:
    if not (text.isascii() and text.isdecimal()):
        raise RefusedError(invalid_input("Not a number", [location], location_type))
    return int(text)


@dataclass(frozen=True, slots=True)
class Route(Generic[Endpoint]):
    """A method and a path; `{name}` stands for one segment. `operation` is the name it is counted under."""

    method: str
    segments: tuple[str, ...]
    operation: str
    endpoint: Endpoint

    def match(self, method: str, segments: list[str]) -> dict[str, str] | None:
        """Return the named segments if this route fits, else None."""
        if method != self.method or len(segments) != len(self.segments):
            return None
        named = {}
        for expected, actual in zip(self.segments, segments, strict=True):
            if expected[:1] == "{":
                named[expected[1:-1]] = actual
            elif expected != actual:
                return None
        return named


class Routes(Generic[Endpoint]):
    """Every route of the emulator, tried in order."""

    def __init__(self, routes: Mapping[tuple[str, str], tuple[str, Endpoint]]) -> None:
        self._routes = [
            Route(method, tuple(path.split("/")), operation, endpoint)
            for (method, path), (operation, endpoint) in routes.items()
        ]

    def find(self, method: str, path: str) -> tuple[Route[Endpoint], dict[str, str]]:
        """Return the route of a raw path (no query) and its named segments; RefusedError (404) if there is none."""
        segments = path.split("/")
        for route in self._routes:
            named = route.match(method, segments)
            if named is not None:
                return route, named
        raise RefusedError(service_error(404, f"Not Found: {method} {unquote(path)}", "Emulator"))
