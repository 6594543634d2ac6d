"""Requests without HTTP, and the routes to their endpoints."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar
from urllib.parse import unquote

from worker.emulator.replies import RefusedError, invalid_input, service_error

Endpoint = TypeVar("Endpoint")


@dataclass(frozen=True, slots=True)
class Call:
    """One request: named path segments, decoded query, body.

    The segments are still percent-encoded, because an encoded comma does
    not separate two names.
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
        """Return an optional query parameter that must be a number."""
        text = self.query.get(name)
        return None if text is None else _number(text, name, "query")

    def uuid(self) -> str:
        """Return the user, a required query parameter."""
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
    """A method, the pattern of a path, and the endpoint.

    ``operation`` is the name in the count of requests.
    """

    method: str
    path: re.Pattern[str]
    operation: str
    endpoint: Endpoint


class Routes(Generic[Endpoint]):
    """Every route of the emulator, tried in order.

    In the paths, ``{name}`` stands for one segment.
    """

    def __init__(self, routes: Mapping[tuple[str, str], tuple[str, Endpoint]]) -> None:
        self._routes = [
            Route(method, _pattern(path), operation, endpoint)
            for (method, path), (operation, endpoint) in routes.items()
        ]

    def find(
        self,
        method: str,
        path: str,
    ) -> tuple[Route[Endpoint], dict[str, str]]:
        """Return the route of an encoded path, and its named segments.

        Raises:
            RefusedError: There is none (404).
        """
        for route in self._routes:
            match = route.path.fullmatch(path)
            if match and route.method == method:
                return route, match.groupdict()
        problem = f"Not Found: {method} {unquote(path)}"
        raise RefusedError(service_error(404, problem, "Emulator"))


def _pattern(path: str) -> re.Pattern[str]:
    return re.compile(re.sub(r"{(\w+)}", r"(?P<\1>[^/]*)", path))
