"""Files that a setting names are opened without waiting: a path may lead to a pipe."""

import os
import stat
from pathlib import Path
from typing import BinaryIO


def open_regular(path: Path) -> BinaryIO:
    """Open a file to read its bytes.

    Raises:
        OSError: The file cannot be opened, or it is a pipe or a device.
        ValueError: No file can have such a name.
    """
    file = open(path, "rb", opener=_open_without_waiting)  # noqa: SIM115 - the caller closes it
    mode = os.fstat(file.fileno()).st_mode
    if not stat.S_ISREG(mode):
        file.close()
        raise OSError(0, "it is not a file")
    return file


def _open_without_waiting(path: str, flags: int) -> int:
    """Open a file; the opening of a pipe would wait for its writer."""
    return os.open(path, flags | os.O_NONBLOCK)
