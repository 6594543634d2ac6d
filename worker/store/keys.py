"""Names of keys and fields: the public contract, schema 1. ``worker/store/README.md`` tells it to readers."""

import hashlib
import re
from collections.abc import Iterable
from typing import Final
from urllib.parse import unquote

from worker.errors import ConfigurationError

SCHEMA: Final = "1"
DEFAULT_NAMESPACE: Final = "tally"
_NAMESPACE = re.compile(r"[A-Za-z0-9_.-]+")

_CHANNEL = str.maketrans({"%": "%25", "{": "%7B", "}": "%7D"})
_PART = str.maketrans({"%": "%25", ":": "%3A"})


def tally_field(type: str, value: str) -> str:
    """Return the field of a ``counts`` hash: split it at the first ``:``; the value is raw."""
    return f"{_part(type)}:{value}"


def action_field(type: str, value: str, uuid: str) -> str:
    """Return the field of an ``actions`` or ``removed`` hash: split it at the first two ``:``; the uuid is raw."""
    return f"{_part(type)}:{_part(value)}:{uuid}"


def _part(text: str) -> str:
    # Asking first is several times faster than translating, and hardly any text has them.
    return text.translate(_PART) if "%" in text or ":" in text else text


def read_tally_field(field: str) -> tuple[str, str]:
    """Return type and value of a ``counts`` field."""
    type, _, value = field.partition(":")
    return (unquote(type) if "%" in type else type), value


def read_action_field(field: str) -> tuple[str, str, str]:
    """Return type, value and uuid of an ``actions`` or ``removed`` field."""
    type, value, uuid = field.split(":", 2)
    return unquote(type), unquote(value), uuid


class Keys:
    """The keys of one namespace. All keys of a channel share a hash tag, and so a cluster slot."""

    def __init__(self, namespace: str = DEFAULT_NAMESPACE) -> None:
        if not _NAMESPACE.fullmatch(namespace):
            raise ConfigurationError(
                f"TALLY_NAMESPACE is {namespace!r}: use letters, digits, '_', '.' and '-' only, at least one."
            )
        self.namespace = namespace
        self.channels = f"{namespace}:channels"
        self.budget = f"{namespace}:budget"
        self.quarantine = f"{namespace}:quarantine"
        self.round = f"{namespace}:round"
        self.subscriptions = f"{namespace}:subscriptions"
        self.meta = f"{namespace}:meta"

    def cursor(self, subscription: str) -> str:
        """Return the key of a subscription's cursor."""
        return f"{self.namespace}:cursor:{subscription}"

    def counts(self, channel: str, message_timetoken: str) -> str:
        """Return the key of a message's tallies, the read model."""
        return self._of(channel, f"counts:{message_timetoken}")

    def actions(self, channel: str, message_timetoken: str) -> str:
        """Return the key of a message's live actions."""
        return self._of(channel, f"actions:{message_timetoken}")

    def removed(self, channel: str, message_timetoken: str) -> str:
        """Return the key of a message's tombstones."""
        return self._of(channel, f"removed:{message_timetoken}")

    def message(self, channel: str, message_timetoken: str) -> tuple[str, str, str]:
        """Return all keys of a message: counts, actions, removed."""
        of = self._of(channel, "")
        return (
            f"{of}counts:{message_timetoken}",
            f"{of}actions:{message_timetoken}",
            f"{of}removed:{message_timetoken}",
        )

    @property
    def pattern(self) -> str:
        """A SCAN pattern for the keys of all channels."""
        return f"{self.namespace}:{{*}}:*"

    def read_message(self, key: str) -> tuple[str, str] | None:
        """Return channel and message timetoken of a key of counts or of actions; None of any other key."""
        # Neither braces nor anything that could be one stand in an encoded channel, so the first } ends it.
        channel, brace, rest = key.removeprefix(f"{self.namespace}:{{").partition("}:")
        kind, _, message = rest.partition(":")
        return (unquote(channel), message) if brace and kind in {"counts", "actions"} else None

    def messages(self, channel: str) -> str:
        """Return the key of a channel's index of messages."""
        return self._of(channel, "messages")

    def journal(self, channel: str) -> str:
        """Return the key of a channel's journal."""
        return self._of(channel, "journal")

    def head(self, channel: str) -> str:
        """Return the key that holds the id of the last journal entry."""
        return self._of(channel, "head")

    def owed(self, channel: str) -> str:
        """Return the key of what a channel still owes."""
        return self._of(channel, "owed")

    def progress(self, channel: str) -> str:
        """Return the key of a running backfill's place."""
        return self._of(channel, "progress")

    def _of(self, channel: str, rest: str) -> str:
        return f"{self.namespace}:{{{channel.translate(_CHANNEL)}}}:{rest}"


def digest(names: Iterable[str]) -> str:
    """Return what names a subscription: a digest of its sorted channel, wildcard and group names.

    No name can contain a newline, so the joined text is unambiguous.
    """
    return hashlib.sha256("\n".join(sorted(names)).encode()).hexdigest()[:32]
