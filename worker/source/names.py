"""The names PubNub accepts: channels, wildcards, channel groups."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import filterfalse
from typing import Final, Self
from urllib.parse import quote

from worker.domain.shards import Shard, order
from worker.errors import ConfigurationError

MAX_CHARACTERS: Final = 92
MAX_GROUPS: Final = 10
"""The groups of one connection."""
MAX_REQUEST_CHARACTERS: Final = 24_000
"""The percent-encoded names in one request, which has 32 KiB."""
_REFUSED: Final = re.compile(r"[,:*/\\\s\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_PREFIX: Final = re.compile(r"[\w-]+(\.[\w-]+)?\*")
"""What other programs take for a wildcard."""
_WILDCARD: Final = re.compile(r"[^.]+\.([^.]+\.)?\*")


def channel(name: str) -> str:
    """Return the name if a channel or a group can have it.

    Raises:
        ConfigurationError: PubNub refuses or misunderstands it.
    """
    if not name:
        raise ConfigurationError("A channel name is empty.")
    if len(name) > MAX_CHARACTERS:
        raise ConfigurationError(
            f"The channel name {name[:20]!r}… has {len(name)} characters; PubNub takes 92."
        )
    if _PREFIX.fullmatch(name):
        raise ConfigurationError(
            f"The name {name!r} is no wildcard: PubNub wants a dot before the asterisk. "
            f"Is {name[:-1]}.* meant? It stands for all channels that begin with '{name[:-1]}.'."
        )
    refused = _REFUSED.search(name)
    if refused:
        raise ConfigurationError(
            f"The channel name {name!r} has {refused[0]!r} in it; "
            "PubNub takes no comma, colon, asterisk, slash, "
            "backslash, space or control character."
        )
    if set(name) == {"."}:
        raise ConfigurationError(
            f"The channel name {name!r} would change the meaning of a URL; use another name."
        )
    return name


def is_wildcard(name: str) -> bool:
    """Tell whether the name stands for all channels under a prefix."""
    return name.endswith(".*")


def wildcard(name: str) -> str:
    """Return the name if it is a wildcard: ``a.*`` or ``a.b.*``."""
    channel(name.removesuffix("*") + "x")
    if not _WILDCARD.fullmatch(name):
        raise ConfigurationError(
            f"The wildcard {name!r} is not of the form a.* or a.b.*; PubNub knows no other."
        )
    return name


def matches(name: str, channel: str) -> bool:
    """Tell whether a wildcard covers a channel."""
    return channel.startswith(name[:-1])


@dataclass(frozen=True, slots=True)
class Names:
    """Names that are followed, each once.

    They stand in the order in which they are cut into subscriptions:
    a shard that is added or removed takes whole ones (``domain/shards.py``).
    """

    channels: tuple[str, ...] = ()
    wildcards: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()

    @classmethod
    def of(cls, names: Iterable[str], groups: Iterable[str] = ()) -> Self:
        """Return the names of settings."""
        # Sorted first, so that the same mistake is named every time.
        names = sorted(set(names))
        channels = map(channel, filterfalse(is_wildcard, names))
        wildcards = map(wildcard, filter(is_wildcard, names))
        return cls(
            tuple(order(channels)),
            tuple(order(wildcards)),
            tuple(order(map(channel, sorted(set(groups))))),
        )

    @classmethod
    def read(cls, names: Iterable[str]) -> Self:
        """Return names that are written as in ``all``."""
        names = set(names)
        groups = set(filter(_is_group, names))
        group_names = [group.removeprefix(":") for group in groups]
        return cls.of(names - groups, group_names)

    @property
    def all(self) -> tuple[str, ...]:
        """Every name. Groups begin with a colon, which no channel has."""
        groups = (f":{group}" for group in self.groups)
        return (*self.channels, *self.wildcards, *groups)

    def __bool__(self) -> bool:
        return bool(self.all)

    def only(self, chosen: frozenset[str]) -> "Names":
        """Return the chosen ones of the names, written as in ``all``."""
        return Names(
            tuple(filter(chosen.__contains__, self.channels)),
            tuple(filter(chosen.__contains__, self.wildcards)),
            tuple(group for group in self.groups if f":{group}" in chosen),
        )

    def without(self, refused: frozenset[str]) -> "Names":
        """Return the other names, written as in ``all``."""
        return self.only(frozenset(self.all) - refused)

    def __or__(self, other: "Names") -> "Names":
        return Names(
            tuple(order({*self.channels, *other.channels})),
            tuple(order({*self.wildcards, *other.wildcards})),
            tuple(order({*self.groups, *other.groups})),
        )

    def of_shard(self, shard: Shard | None) -> "Names":
        """Return the names that belong to a shard, each by its own name."""
        if shard is None:
            return self
        return Names(
            tuple(filter(shard.has, self.channels)),
            tuple(filter(shard.has, self.wildcards)),
            tuple(filter(shard.has, self.groups)),
        )

    def halves(self) -> tuple["Names", ...]:
        """Return two halves, or nothing for a single name."""
        names = self.all
        first = frozenset(names[: len(names) // 2])
        if not first:
            return ()
        return self.only(first), self.without(first)

    def split(self, size: int) -> Iterator["Names"]:
        """Yield subscriptions of at most ``size`` names.

        Each fits into one request. Groups and wildcards come in tens, and
        apart from channels: their number of channels is unknown.
        """
        groups_size = min(size, MAX_GROUPS)
        for channels in _parts(self.channels, size):
            yield Names(channels=channels)
        for wildcards in _parts(self.wildcards, groups_size):
            yield Names(wildcards=wildcards)
        for groups in _parts(self.groups, groups_size):
            yield Names(groups=groups)


def _is_group(name: str) -> bool:
    return name.startswith(":")


def _parts(names: tuple[str, ...], size: int) -> Iterator[tuple[str, ...]]:
    """Yield parts of at most ``size`` names that fit into one request."""
    part: list[str] = []
    length = 0
    for name in names:
        added = len(quote(name, safe="")) + 1
        is_full = len(part) == size or length + added > MAX_REQUEST_CHARACTERS
        if part and is_full:
            yield tuple(part)
            part = []
            length = 0
        part.append(name)
        length += added
    if part:
        yield tuple(part)
