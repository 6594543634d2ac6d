"""Signatures of requests, version 2: made with the secret key."""

import hmac
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from typing import Final
from urllib.parse import quote

PREFIX: Final = "v2."


def signature(
    call: tuple[str, str],
    query: Mapping[str, str],
    body: bytes,
    keys: tuple[str, str],
) -> str:
    """Return the signature of a request.

    ``call`` is method and path, ``keys`` are publish key and secret key.
    The query is decoded, and may have a signature.
    """
    method, path = call
    publish_key, secret_key = keys
    head = "\n".join([method, publish_key, path, _sorted(query), ""])
    digest = hmac.digest(secret_key.encode(), _bytes(head) + body, "sha256")
    text = urlsafe_b64encode(digest).decode()
    return PREFIX + text.rstrip("=")


def is_equal(one: str, other: str) -> bool:
    """Compare two signatures, in a time that tells nothing."""
    return hmac.compare_digest(_bytes(one), _bytes(other))


def _bytes(text: str) -> bytes:
    """Return UTF-8; what is no character in it becomes a question mark."""
    return text.encode(errors="replace")


def _sorted(query: Mapping[str, str]) -> str:
    pairs = [f"{name}={_encoded(query[name])}" for name in sorted(query) if name != "signature"]
    return "&".join(pairs)


def _encoded(value: str) -> str:
    """Encode all but letters, digits and ``_.-``."""
    encoded = quote(value, safe="", errors="replace")
    return encoded.replace("~", "%7E")
