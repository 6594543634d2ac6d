"""HTTP answers as values, and the bodies of PubNub's errors."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer; ``dropped`` is a connection closed without one."""

    status: int
    body: bytes = b""
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)
    dropped: bool = False


DROPPED: Final = Reply(500, dropped=True)


class RefusedError(Exception):
    """A request is refused, with this reply."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(f"{reply.status}: {reply.body.decode()}")
        self.reply = reply


def json_reply(document: object, status: int = 200) -> Reply:
    """Return a reply with any JSON. Lone surrogates are escaped."""
    return Reply(status, json.dumps(document).encode())


def html_reply(status: int, title: str) -> Reply:
    """Return the reply of a proxy in front of PubNub."""
    head = f"<head><title>{title}</title></head>"
    page = f"<html>{head}<body>{title}</body></html>"
    return Reply(status, page.encode(), "text/html")


def actions_error(status: int, message: str, **more: object) -> Reply:
    """Return an error of the message-actions service."""
    error = {"source": "actions", "message": message, **more}
    return json_reply({"status": status, "error": error}, status)


def invalid_input(problem: str, locations: Iterable[str], location_type: str) -> Reply:
    """Return the 400 for wrong fields of a body, query or path."""
    details = []
    for name in locations:
        detail = {
            "message": problem,
            "location": name,
            "locationType": location_type,
        }
        details.append(detail)
    message = "Request payload contained invalid input."
    return actions_error(400, message, details=details)


def service_error(
    status: int,
    message: str,
    service: str = "Access Manager",
    **more: object,
) -> Reply:
    """Return an error of another service."""
    document = {
        "message": message,
        **more,
        "error": True,
        "service": service,
        "status": status,
    }
    return json_reply(document, status)


def forbidden(topics: Iterable[str]) -> Reply:
    """Return the Access Manager's 403 with the refused channels and groups.

    Groups begin with a colon, here and there.
    """
    payload: dict[str, list[str]] = {}
    for topic in topics:
        kind = "channel-groups" if topic.startswith(":") else "channels"
        names = payload.setdefault(kind, [])
        names.append(topic)
    return service_error(403, "Forbidden", payload=payload)


def throttled(seconds: int) -> Reply:
    """Return a 429 that asks for a wait."""
    refusal = service_error(429, "Too Many Requests", "Throttle")
    headers = {"Retry-After": str(seconds)}
    return Reply(429, refusal.body, headers=headers)
