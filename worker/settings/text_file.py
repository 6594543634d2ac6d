"""Text files that settings name.

An error names the setting and the file. It does not quote the file,
because that may hold a secret.
"""

import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from worker.errors import ConfigurationError

MAX_BYTES: Final = 16 * 1024 * 1024
"""A longer file is none that a setting should name."""
MAX_SECRET_BYTES: Final = 65_536
"""A longer file holds no key, token or address."""
MAX_LINES: Final = 10
"""An error lists this many lines. A file with more is some other file."""


def read_secret(setting: str, path: Path) -> str:
    """Return the text of a secret's file, without the white space around it.

    Raises:
        ConfigurationError: The file is unreadable, too long, or empty.
    """
    secret = read_text(setting, path, MAX_SECRET_BYTES).strip()
    if not secret:
        raise ConfigurationError(f"{setting}: the file {path} is empty.")
    return secret


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

    file = _describe(path)
    raise ConfigurationError(f"{setting}: {file} cannot be read: {reason}.")


def list_lines(numbers: Sequence[int]) -> str:
    """Return the numbers of wrong lines, as in ``line 3, 5``."""
    listed = ", ".join(map(str, numbers[:MAX_LINES]))
    more = " and more" if len(numbers) > MAX_LINES else ""
    return f"line {listed}{more}"


def _read(path: Path, max_bytes: int) -> bytes:
    """Return the content of a regular file that is not too long."""
    with open(path, "rb", opener=_open_without_waiting) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(0, "it is not a file")

        content = file.read(max_bytes + 1)

    if len(content) > max_bytes:
        raise OSError(0, f"it is longer than {max_bytes} bytes")
    return content


def _open_without_waiting(path: str, flags: int) -> int:
    """Open a file; the opening of a pipe would wait for its writer."""
    return os.open(path, flags | os.O_NONBLOCK)


def _describe(path: Path) -> str:
    """Return the path, unless it may be a secret in the wrong variable."""
    if path.is_absolute() or os.path.lexists(path):
        return f"the file {path}"
    return "the file (not shown: nothing is there, and it may be the secret itself)"
