"""HTTP answers as values, and the bodies PubNub's errors have."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

HTML: Final = "text/html"


@dataclass(frozen=True, slots=True)
class Reply:
    """What a request is answered. `dropped` means: not at all, the connection is closed."""

    status: int
    body: bytes = b""
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)
    dropped: bool = False


DROPPED: Final = Reply(0, dropped=True)


class RefusedError(Exception):
    """A request that cannot be granted; carries the reply that says so."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(f"{reply.status}: {reply.body.decode()}")
        self.reply = reply


def json_reply(document: object, status: int = 200) -> Reply:
    """Return a reply with any JSON document; lone surrogates leave escaped, as they came."""
    return Reply(status, json.dumps(document).encode())


def html_reply(status: int, title: str) -> Reply:
    """Return what a proxy in front of PubNub answers."""
    return Reply(
        status,
        f"<html><head><title>{title}</title></head><body>{title}</body></html>".encode(),
        HTML,
    )


def actions_error(status: int, message: str, details: object = None) -> Reply:
    """Return an error as the message-actions service words it."""
    error: dict[str, object] = {"source": "actions", "message": message}
    if details is not None:
        error["details"] = details
    return json_reply({"status": status, "error": error}, status)


def invalid_input(problem: str, locations: Iterable[str], location_type: str) -> Reply:
    """Return the 400 for missing or unusable fields; `location_type` is body, query or path."""
    details = [
        {"message": problem, "location": name, "locationType": location_type} for name in locations
    ]
    return actions_error(400, "Request payload contained invalid input.", details)


def service_error(status: int, message: str, service: str = "Access Manager") -> Reply:
    """Return an error as the other services word it."""
    return json_reply(
        {"message": message, "error": True, "service": service, "status": status}, status
    )


def forbidden(channels: Iterable[str], groups: Iterable[str]) -> Reply:
    """Return the Access Manager's 403, naming the offenders; groups carry a colon there."""
    payload: dict[str, list[str]] = {}
    if names := list(channels):
        payload["channels"] = names
    if names := [f":{group}" for group in groups]:
        payload["channel-groups"] = names
    document = {
        "message": "Forbidden",
        "payload": payload,
        "error": True,
        "service": "Access Manager",
        "status": 403,
    }
    return json_reply(document, 403)


def throttled(seconds: int) -> Reply:
    """Return a 429 that asks to wait."""
    document = {"message": "Too Many Requests", "error": True, "service": "Throttle", "status": 429}
    return Reply(429, json.dumps(document).encode(), headers={"Retry-After": str(seconds)})
