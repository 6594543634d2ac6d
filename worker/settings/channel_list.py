"""Channels to follow, as text and as a file that may change while a worker runs."""

import re
from pathlib import Path
from typing import Final

from worker.errors import ConfigurationError
from worker.settings.text_file import list_lines, read_text
from worker.source.names import Names

SETTING: Final = "TALLY_CHANNELS_FILE"
_COMMENT: Final = re.compile(r"^[^\S\n]*#.*", re.MULTILINE)


def split_names(text: str) -> tuple[str, ...]:
    """Return the names in comma-separated text."""
    names = map(str.strip, text.split(","))
    return tuple(filter(None, names))


def read_list(path: Path) -> tuple[str, ...]:
    """Return the channels that a file lists.

    A line holds a channel, or several with commas between.
    ``#`` begins a comment line.

    Raises:
        ConfigurationError: The file is unreadable, or a name is malformed.
    """
    text = _COMMENT.sub("", read_text(SETTING, path))
    channels = split_names(text.replace("\n", ","))
    if _are_accepted(channels):
        return channels

    wrong = [
        number
        for number, line in enumerate(text.split("\n"), 1)
        if not _are_accepted(split_names(line))
    ]
    # The names are not quoted: a wrong path may lead to the file of a secret.
    raise ConfigurationError(
        f"{SETTING}: the file {path}, {list_lines(wrong)}: no name PubNub takes. "
        "A name has at most 92 characters, and no comma, colon, slash, backslash, "
        "space or control character. A wildcard is like a.* or a.b.*."
    )


def _are_accepted(names: tuple[str, ...]) -> bool:
    try:
        Names.of(names)
    except ConfigurationError:
        return False
    return True
