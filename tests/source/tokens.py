"""Access tokens as Access Manager v3 makes them: CBOR, signed, in base64 for URLs."""

from base64 import urlsafe_b64encode
from datetime import UTC, datetime
from typing import Any

from cbor2 import dumps

NOW = datetime(2026, 11, 29, 10, tzinfo=UTC).timestamp()
"""When the tokens of tests are made, unless they are made at another time."""


def access_token(minutes: int, made_at: float = NOW, **fields: Any) -> str:
    """Return a token that lives so many minutes. ``fields`` replace others."""
    nothing: dict[str, dict[str, int]] = {"chan": {}, "grp": {}, "uuid": {}, "usr": {}, "spc": {}}
    token = {
        "v": 2,
        "t": int(made_at),
        "ttl": minutes,
        "res": {**nothing, "chan": {"room": 1}},
        "pat": nothing,
        "meta": {},
        "uuid": "reaction-tally",
        "sig": b"\xff\xfe" * 16,
        **fields,
    }
    return urlsafe_b64encode(dumps(token)).decode()
