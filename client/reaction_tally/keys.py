"""Names of keys and fields: the contract of schema 1.

The worker writes them, and programs in any language read them.
"""

import re
from functools import lru_cache
from typing import Final
from urllib.parse import unquote

from reaction_tally.errors import InvalidNameError

SCHEMA: Final = "1"
DEFAULT_NAMESPACE: Final = "tally"
RANKED_ABOVE: Final = 128
"""A message with more actions is *ranked*: each of its tallies has a ``who`` key."""
WHO_EPOCH: Final = 17 * 10**15
"""A score of ``who`` is an action timetoken less this. So it is exact in a double until 2052."""
HEARTBEAT_LIFE_SECONDS: Final = 86_400
"""``subscriptions`` lives so long after each heartbeat of a worker."""
PREFIXES: Final = 256
"""Types and values whose tally is remembered; there are few."""
_NAMESPACE = re.compile(r"[A-Za-z0-9_.-]+")
_SURROGATE = re.compile("[\ud800-\udfff]")
_POSITION = re.compile(r"[0-9]{1,20}-[0-9]{1,20}", re.ASCII)

_CHANNEL = str.maketrans({"%": "%25", "{": "%7B", "}": "%7D"})
_PART = str.maketrans({"%": "%25", ":": "%3A"})


def encoded_channel(channel: str) -> str:
    """Return a channel as it stands in the braces of a key."""
    # To look first is several times faster than to translate.
    if "%" in channel or "{" in channel or "}" in channel:
        return channel.translate(_CHANNEL)
    return channel


def tally_field(type: str, value: str) -> str:
    """Return a field of a ``counts`` hash.

    Readers split it at the first ``:``. The value is raw.
    """
    return f"{encoded_part(type)}:{value}"


def action_field(type: str, value: str, uuid: str) -> str:
    """Return a field of an ``actions`` or ``removed`` hash.

    Readers split it at the first two ``:``. The uuid is raw.
    """
    return f"{encoded_part(type)}:{encoded_part(value)}:{uuid}"


def action_prefix(tally: str) -> str:
    """Return how fields of ``actions`` begin that a tally counts."""
    type, _, value = tally.partition(":")
    return f"{type}:{encoded_part(value)}:"


def tally_parts(field: str) -> tuple[str, str]:
    """Return the type and the value of a field of a ``counts`` hash."""
    type, _, value = field.partition(":")
    return unquote(type), value


def tally_of(field: str) -> str:
    """Return the field of ``counts`` that counts a field of ``actions``.

    Raises:
        ValueError: no worker writes such a field.
    """
    type, value, _ = field.split(":", 2)
    return _decoded_tally(type, value)


@lru_cache(PREFIXES)
def _decoded_tally(type: str, value: str) -> str:
    tally = tally_field(unquote(type), unquote(value))
    if action_prefix(tally) != f"{type}:{value}:":
        raise ValueError(f"{type}:{value} is not encoded as actions are")
    return tally


def encoded_part(text: str) -> str:
    """Return a type, or a value of ``actions``, as it stands in a field."""
    # To look first is several times faster than to translate.
    # Hardly any text has these characters.
    if "%" in text or ":" in text:
        return text.translate(_PART)
    return text


def action_timetoken(score: str) -> str:
    """Return the action timetoken of a score of ``who``."""
    return str(int(float(score)) + WHO_EPOCH)


def read_action_field(field: str) -> tuple[str, str, str]:
    """Return type, value and uuid of an ``actions`` or ``removed`` field.

    Raises:
        ValueError: the field has fewer than three parts.
    """
    type, value, uuid = field.split(":", 2)
    return unquote(type), unquote(value), uuid


class Keys:
    """The keys of one namespace.

    All keys of a channel share a hash tag, and so a cluster slot.
    """

    def __init__(self, namespace: str = DEFAULT_NAMESPACE) -> None:
        if not _NAMESPACE.fullmatch(namespace):
            raise InvalidNameError(
                f"The namespace is {namespace!r}: "
                "use letters, digits, '_', '.' and '-' only, at least one."
            )
        self.namespace = namespace
        self.channels = f"{namespace}:channels"
        self.budget = f"{namespace}:budget"
        self.quarantine = f"{namespace}:quarantine"
        self.round = f"{namespace}:round"
        self.proven = f"{namespace}:proven"
        self.proven_full = f"{namespace}:proven:full"
        self.subscriptions = f"{namespace}:subscriptions"
        self.meta = f"{namespace}:meta"
        self.forgotten = f"{namespace}:forgotten"
        self.probe = f"{namespace}:probe"
        self.hints = f"{namespace}:changed"
        """No key: the Pub/Sub channel on which scripts say which channel has a new head."""
        self.pattern = f"{namespace}:{{*}}:*"
        """Matches the keys of all channels in a SCAN."""

    def cursor(self, subscription: str) -> str:
        """The cursor of a subscription."""
        return f"{self.namespace}:cursor:{subscription}"

    def counts(self, channel: str, message_timetoken: str) -> str:
        """The tallies of a message: the read model."""
        return self._key(channel, f"counts:{message_timetoken}")

    def actions(self, channel: str, message_timetoken: str) -> str:
        """The live actions of a message."""
        return self._key(channel, f"actions:{message_timetoken}")

    def removed(self, channel: str, message_timetoken: str) -> str:
        """The tombstones of a message."""
        return self._key(channel, f"removed:{message_timetoken}")

    def who(self, channel: str, message_timetoken: str, tally: str) -> str:
        """The users of one tally of a ranked message, by their action timetoken.

        ``tally`` is a field of ``counts``.
        """
        prefix = action_prefix(tally)
        return self._key(channel, f"who:{message_timetoken}:{prefix[:-1]}")

    def message(self, channel: str, message_timetoken: str) -> tuple[str, str, str]:
        """All keys of a message: counts, actions, removed."""
        return message_keys(self.prefix(channel), message_timetoken)

    def read_message(self, key: str) -> tuple[str, str] | None:
        """Channel and message timetoken of a key of counts, of actions or of who.

        None for any other key.
        """
        key = key.removeprefix(f"{self.namespace}:{{")
        # An encoded channel has no brace, so the first one ends it.
        channel, brace, name = key.partition("}:")
        kind, _, message = name.partition(":")
        if kind == "who":
            message, _, _ = message.partition(":")
        if brace and kind in {"counts", "actions", "who"}:
            return unquote(channel), message
        return None

    def changed(self, channel: str) -> tuple[str, str, str]:
        """What each change of a channel writes: messages, journal, head."""
        return changed_keys(self.prefix(channel))

    def messages(self, channel: str) -> str:
        """The index of a channel's messages."""
        return self._key(channel, "messages")

    def journal(self, channel: str) -> str:
        """The journal of a channel."""
        return self._key(channel, "journal")

    def head(self, channel: str) -> str:
        """The id of a channel's last journal entry."""
        return self._key(channel, "head")

    def owed(self, channel: str) -> str:
        """The repairs that a channel needs."""
        return self._key(channel, "owed")

    def progress(self, channel: str) -> str:
        """How far a channel's repair has come."""
        return self._key(channel, "progress")

    def shard_round(self, shard: str) -> str:
        """Return the key of the last round of a shard, such as ``0/3``."""
        return f"{self.round}:{shard}"

    def pruned(self, channel: str) -> str:
        """How many entries of a channel were pruned lately."""
        return self._key(channel, "pruned")

    def prefix(self, channel: str) -> str:
        """How every key of a channel begins."""
        return f"{self.namespace}:{{{encoded_channel(channel)}}}:"

    def _key(self, channel: str, name: str) -> str:
        return self.prefix(channel) + name


def read_hint(hint: str) -> tuple[str, str] | None:
    """Return the channel and its new head, from a message of ``Keys.hints``.

    The channel stands there as it stands in the braces of its keys.
    None for a message that no script sends.
    """
    channel, _, head = hint.rpartition(" ")
    # Bytes that are no UTF-8 have become surrogates, which no channel has.
    is_hint = is_position(head) and not _SURROGATE.search(channel)
    return (unquote(channel), head) if is_hint else None


def heartbeat_age(left: int) -> float | None:
    """Return how many seconds ago a worker's last heartbeat was.

    ``left`` are the milliseconds that ``subscriptions`` has left to live.
    None if there was no heartbeat for a day.
    """
    if left < 0:
        return None
    return max(0.0, HEARTBEAT_LIFE_SECONDS - left / 1000)


def is_position(text: str) -> bool:
    """Tell whether a text is the id of an entry in a journal."""
    return _POSITION.fullmatch(text) is not None


def message_keys(prefix: str, message_timetoken: str) -> tuple[str, str, str]:
    """Return the keys of a message, for a ``Keys.prefix``: counts, actions, removed."""
    return (
        f"{prefix}counts:{message_timetoken}",
        f"{prefix}actions:{message_timetoken}",
        f"{prefix}removed:{message_timetoken}",
    )


def changed_keys(prefix: str) -> tuple[str, str, str]:
    """Return what each change of a channel writes: messages, journal, head."""
    return f"{prefix}messages", f"{prefix}journal", f"{prefix}head"
