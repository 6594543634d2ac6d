"""What a request is answered with, as a whole."""

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from worker.telemetry.health import as_json


@dataclass(frozen=True, slots=True)
class Page:
    """What a request is answered with."""

    status: int
    content_type: str
    body: bytes


Answer = Callable[[], Awaitable[Page]]
"""Returns the page of a path."""


def json_page(document: object, status: int = 200) -> Page:
    """Return a document as one line of JSON in ASCII, which no terminal obeys."""
    return Page(status, "application/json", json.dumps(document).encode() + b"\n")


def health_page(results: Mapping[str, str | None]) -> Page:
    """Return the results of checks as JSON: 200 if all passed, else 503."""
    is_healthy = not any(results.values())
    return json_page(as_json(results), 200 if is_healthy else 503)


def metrics_page() -> Page:
    """Return every metric of this process, in Prometheus' text format."""
    return Page(200, CONTENT_TYPE_LATEST, generate_latest())
