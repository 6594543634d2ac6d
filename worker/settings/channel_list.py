"""Channels to follow, listed in a file that may change while a worker runs."""

from pathlib import Path
from typing import Final

from worker.errors import ConfigurationError
from worker.settings.sources import read_text
from worker.source import names

MAX_LIST_BYTES: Final = 16 * 1024 * 1024
"""A list of channels that is longer is some other file."""
MAX_WRONG_LINES: Final = 10
"""Lines of a list that are told; where there are more, it is some other file."""


def read_list(path: Path) -> tuple[str, ...]:
    """Return the channels a file lists: one a line, or with commas between; ``#`` begins a line that is a comment.

    Raises:
        ConfigurationError: it cannot be read, or PubNub would refuse a name in it; the sentence gives the lines.
    """
    try:
        text = read_text(path, MAX_LIST_BYTES)
    except ConfigurationError as error:
        raise ConfigurationError(f"TALLY_CHANNELS_FILE: {error}") from None
    lines = [line.strip() for line in text.split("\n")]
    found = [
        (number, split_names(line))
        for number, line in enumerate(lines, 1)
        if not line.startswith("#")
    ]
    if wrong := [str(number) for number, some in found if not all(map(_is_accepted, some))]:
        told = ", ".join(wrong[:MAX_WRONG_LINES]) + (" and more" if wrong[MAX_WRONG_LINES:] else "")
        # The names are not quoted: given the wrong path, this is some other file, a secret's maybe.
        raise ConfigurationError(
            f"TALLY_CHANNELS_FILE: the file {path}, line {told}: no name PubNub takes. It may have 92 characters, "
            "no comma, colon, slash, backslash, space or control character, and a wildcard like a.* or a.b.*."
        )
    return tuple(name for _, some in found for name in some)


def split_names(text: str) -> tuple[str, ...]:
    """Return the names in comma-separated text."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _is_accepted(name: str) -> bool:
    try:
        return bool(names.wildcard(name) if names.is_wildcard(name) else names.channel(name))
    except ConfigurationError:
        return False
