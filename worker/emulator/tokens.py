"""Access tokens of version 3: who may do what, and until when.

A token is CBOR in Base64 that a URL can carry, as SDKs read it.
"""

import re
from base64 import urlsafe_b64encode
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from secrets import token_bytes
from typing import Any, Final

from cbor2 import dumps

READ: Final = 1
WRITE: Final = 2
MANAGE: Final = 4
DELETE: Final = 8

LONGEST_MINUTES: Final = 43_200
"""Thirty days, the longest life of a token."""
VERSION: Final = 2
"""What the tokens of Access Manager 3 say."""

_OTHERS: Final = (b"spc", b"usr", b"uuid")

Permissions = Mapping[str, int]
"""Name, or pattern, of channels or groups → sum of what is permitted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """What a token permits, for so many minutes.

    With a ``uuid``, it permits that to this user alone. A pattern is a
    regular expression.
    """

    minutes: int
    uuid: str | None = None
    channels: Permissions = field(default_factory=dict)
    groups: Permissions = field(default_factory=dict)
    channel_patterns: Permissions = field(default_factory=dict)
    group_patterns: Permissions = field(default_factory=dict)

    def lacking(self, topics: Iterable[str], wanted: int) -> list[str]:
        """Return the topics for which nothing wanted is permitted."""
        return [topic for topic in topics if not self._permitted(topic) & wanted]

    def _permitted(self, topic: str) -> int:
        """Return the sum of what is permitted for a channel or ``:group``."""
        resources, patterns = self.channels, self.channel_patterns
        if topic.startswith(":"):
            resources, patterns = self.groups, self.group_patterns
        name = topic.removeprefix(":")
        permitted = resources.get(name, 0)
        for more in _matching(patterns, name):
            permitted |= more
        return permitted


def _matching(patterns: Permissions, name: str) -> Iterator[int]:
    for pattern, permitted in patterns.items():
        # Whether PubNub looks anywhere in a name is not documented.
        # Its examples have ^ and $.
        if re.search(pattern, name):
            yield permitted


def read_grant(document: Any) -> Grant:
    """Return what the JSON of a grant request permits.

    Raises:
        ValueError: A number is wrong. Other errors are of its shape, or of a pattern.
    """
    minutes = document["ttl"]
    if minutes not in range(1, LONGEST_MINUTES + 1):
        raise ValueError(minutes)

    permissions = document["permissions"]
    uuid = permissions.get("uuid")
    if not isinstance(uuid, str | None):
        raise TypeError(uuid)
    resources = permissions["resources"]
    patterns = permissions["patterns"]
    return Grant(
        minutes=minutes,
        uuid=uuid,
        channels=_permissions(resources.get("channels", {})),
        groups=_permissions(resources.get("groups", {})),
        channel_patterns=_compiled(patterns.get("channels", {})),
        group_patterns=_compiled(patterns.get("groups", {})),
    )


def _permissions(document: Any) -> Permissions:
    permissions = document.items()
    return {str(name): int(number) for name, number in permissions}


def _compiled(document: Any) -> Permissions:
    permissions = _permissions(document)
    for pattern in permissions:
        re.compile(pattern)
    return permissions


def write_token(grant: Grant, issued: int) -> str:
    """Return a token; ``issued`` is in seconds since 1970."""
    content: dict[bytes, Any] = {
        b"v": VERSION,
        b"t": issued,
        b"ttl": grant.minutes,
        b"res": _part(grant.channels, grant.groups),
        b"pat": _part(grant.channel_patterns, grant.group_patterns),
        b"meta": {},
    }
    if grant.uuid is not None:
        content[b"uuid"] = grant.uuid
    # What PubNub signs, and how, is not documented.
    # Here the random bytes make a token unique.
    content[b"sig"] = token_bytes(32)
    return urlsafe_b64encode(dumps(content)).decode()


def _part(
    channels: Permissions,
    groups: Permissions,
) -> dict[bytes, Permissions]:
    others: dict[bytes, Permissions] = {key: {} for key in _OTHERS}
    return {b"chan": dict(channels), b"grp": dict(groups), **others}
