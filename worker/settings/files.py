"""Text files that settings name: secrets, and channels to follow.

An error names the setting and the file. It does not quote the file,
because that may hold a secret.
"""

import os
import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from worker.errors import ConfigurationError
from worker.regular_files import open_regular
from worker.settings.name_list import NameListError, read_names
from worker.source.names import Names

MAX_BYTES: Final = 16 * 1024 * 1024
"""A longer file is none that a setting should name."""
MAX_SECRET_BYTES: Final = 65_536
"""A longer file holds no key, token or address."""
MAX_LINES: Final = 10
"""An error lists this many lines. A file with more is some other file."""
_COMMENT: Final = re.compile(r"^[^\S\n]*#.*", re.MULTILINE)


def read_secret(setting: str, path: Path) -> str:
    """Return the text of a secret's file, without the white space around it.

    Raises:
        ConfigurationError: The file is unreadable, too long, or empty.
    """
    secret = read_text(setting, path, MAX_SECRET_BYTES).strip()
    if not secret:
        advice = f"Write the value into it, or take {setting} away."
        raise ConfigurationError(f"{setting}: the file {path} is empty. {advice}")
    return secret


def read_channels(path: Path) -> tuple[str, ...]:
    """Return the channels that a file lists.

    A line holds a channel, or several with commas between.
    ``#`` begins a comment line.

    Raises:
        ConfigurationError: The file is unreadable, or a name is malformed.
    """
    text = _COMMENT.sub("", read_text("TALLY_CHANNELS_FILE", path))
    with suppress(NameListError):
        # The comma keeps an apostrophe of the first name from being the last one's quote.
        channels = read_names("," + text.replace("\n", ","))
        if _are_accepted(channels):
            return channels

    lines = text.split("\n")
    _check_syntax(path, lines)
    listed = enumerate(map(read_names, lines), 1)
    wrong = [number for number, names in listed if not _are_accepted(names)]
    # The names are not quoted: a wrong path may lead to the file of a secret.
    raise ConfigurationError(
        f"TALLY_CHANNELS_FILE: the file {path}, "
        f"{list_lines(wrong)}: no name PubNub takes. "
        "A name has at most 92 characters, "
        "and no comma, colon, slash, backslash, "
        "space or control character. "
        "A wildcard is like a.* or a.b.*."
    )


def _check_syntax(path: Path, lines: Sequence[str]) -> None:
    """Refuse lines in another syntax, such as JSON; their text is not quoted."""
    wrong = {number: _refusal(line) for number, line in enumerate(lines, 1)}
    found = {number: words for number, words in wrong.items() if words}
    if not found:
        return
    first = next(iter(found.values()))
    raise ConfigurationError(
        f"TALLY_CHANNELS_FILE: the file {path}, "
        f"{list_lines(list(found))}: {first}. "
        "Write one name a line, such as room, or room,news: "
        "no brackets, quotes, white space or "
        "invisible characters."
    )


def _refusal(line: str) -> str | None:
    try:
        read_names(line)
    except NameListError as error:
        return error.found
    return None


def _are_accepted(names: tuple[str, ...]) -> bool:
    try:
        Names.of(names)
    except ConfigurationError:
        return False
    return True


def list_lines(numbers: Sequence[int]) -> str:
    """Return the numbers of wrong lines, as in ``line 3, 5``."""
    listed = ", ".join(map(str, numbers[:MAX_LINES]))
    more = " and more" if len(numbers) > MAX_LINES else ""
    return f"line {listed}{more}"


def read_text(setting: str, path: Path, max_bytes: int = MAX_BYTES) -> str:
    """Return the text of a file, without a byte-order mark.

    Raises:
        ConfigurationError: The file is unreadable, too long, or not UTF-8.
    """
    try:
        return _read(path, max_bytes).decode("utf-8-sig")
    except OSError as error:
        reason = error.strerror
    except ValueError:  # of the text, or of a path with a NUL in it
        reason = "it is not UTF-8 text"

    file = f"the file {path}"
    if not path.is_absolute() and not os.path.lexists(path):
        file = "the file (not shown: nothing is there, and it may be the secret itself)"
    raise ConfigurationError(f"{setting}: {file} cannot be read: {reason}.")


def _read(path: Path, max_bytes: int) -> bytes:
    with open_regular(path) as file:
        content = file.read(max_bytes + 1)

    if len(content) > max_bytes:
        raise OSError(0, f"it is longer than {max_bytes} bytes")
    return content
