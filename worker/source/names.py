"""Names PubNub accepts: channels, wildcards, channel groups."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, Self
from urllib.parse import quote

from worker.errors import ConfigurationError

MAX_CHARACTERS: Final = 92
MAX_GROUPS: Final = 10
"""Groups a connection may carry."""
MAX_REQUEST_CHARACTERS: Final = 24_000
"""Names in one request, percent-encoded; PubNub refuses a request line of more than 32 KiB."""
_REFUSED: Final = re.compile(r"[,:*/\\\s\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_WILDCARD: Final = re.compile(r"[^.]+\.([^.]+\.)?\*")


def channel(name: str) -> str:
    """Return the name if a channel or a group can have it.

    Raises:
        ConfigurationError: PubNub would refuse it, or take it for something else.
    """
    if not name:
        raise ConfigurationError("A channel name is empty.")
    if len(name) > MAX_CHARACTERS:
        raise ConfigurationError(
            f"The channel name {name[:20]!r}… has {len(name)} characters; PubNub takes 92."
        )
    if refused := _REFUSED.search(name):
        raise ConfigurationError(
            f"The channel name {name!r} has {refused[0]!r} in it; PubNub takes no comma, colon, asterisk, slash, "
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
    """Return the name if it is a wildcard PubNub knows: ``a.*`` or ``a.b.*``.

    Raises:
        ConfigurationError: it is not.
    """
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
    """What a subscription listens to."""

    channels: tuple[str, ...] = ()
    wildcards: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()

    @classmethod
    def of(cls, names: Iterable[str], groups: Iterable[str] = ()) -> Self:
        """Sort out names as settings give them.

        Raises:
            ConfigurationError: PubNub would refuse one of them.
        """
        unique = sorted(set(names))
        return cls(
            tuple(channel(name) for name in unique if not is_wildcard(name)),
            tuple(wildcard(name) for name in unique if is_wildcard(name)),
            tuple(channel(group) for group in sorted(set(groups))),
        )

    @classmethod
    def read(cls, names: Iterable[str]) -> Self:
        """Sort out names as they are written in ``all``.

        Raises:
            ConfigurationError: PubNub would refuse one of them.
        """
        told = list(names)
        groups = (name.removeprefix(":") for name in told if name.startswith(":"))
        return cls.of((name for name in told if not name.startswith(":")), groups)

    @property
    def all(self) -> tuple[str, ...]:
        """Every name; groups with a leading colon, which no channel can have."""
        return (*self.channels, *self.wildcards, *(f":{group}" for group in self.groups))

    def __bool__(self) -> bool:
        return bool(self.all)

    def without(self, refused: frozenset[str]) -> "Names":
        """Return what is left when the refused names (written as in ``all``) are taken out."""
        return Names(
            tuple(name for name in self.channels if name not in refused),
            tuple(name for name in self.wildcards if name not in refused),
            tuple(group for group in self.groups if f":{group}" not in refused),
        )

    def only(self, chosen: frozenset[str]) -> "Names":
        """Return those of the names that are chosen (written as in ``all``)."""
        return Names(
            tuple(name for name in self.channels if name in chosen),
            tuple(name for name in self.wildcards if name in chosen),
            tuple(group for group in self.groups if f":{group}" in chosen),
        )

    def __or__(self, other: "Names") -> "Names":
        """Return the names of both."""
        return Names(
            tuple(sorted({*self.channels, *other.channels})),
            tuple(sorted({*self.wildcards, *other.wildcards})),
            tuple(sorted({*self.groups, *other.groups})),
        )

    def halves(self) -> tuple["Names", ...]:
        """Return two halves, each a subscription of its own; none of a single name."""
        first = frozenset(self.all[: len(self.all) // 2])
        return (self.only(first), self.without(first)) if first else ()

    def split(self, size: int) -> Iterator["Names"]:
        """Yield subscriptions of at most ``size`` names that fit into one request; groups and wildcards by ten.

        Channels are kept apart from groups and wildcards: how many channels those stand for, nobody knows.
        """
        yield from (Names(channels=part) for part in _parts(self.channels, size))
        yield from (Names(wildcards=part) for part in _parts(self.wildcards, min(size, MAX_GROUPS)))
        yield from (Names(groups=part) for part in _parts(self.groups, min(size, MAX_GROUPS)))


def _parts(names: tuple[str, ...], size: int) -> Iterator[tuple[str, ...]]:
    part: list[str] = []
    length = 0
    for name in names:
        own = len(quote(name, safe="")) + 1
        if part and (len(part) == size or length + own > MAX_REQUEST_CHARACTERS):
            yield tuple(part)
            part, length = [], 0
        part.append(name)
        length += own
    if part:
        yield tuple(part)
