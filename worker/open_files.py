"""Too many open files: how an error says so, and what to do."""

import errno
from typing import Final

NUMBERS: Final = (
    errno.EMFILE,
    errno.ENFILE,
)
WORDS: Final = "this process has too many open files"
ADVICE: Final = "Raise the limit: LimitNOFILE in systemd, ulimit -n in a shell, ulimits in compose."


def is_without_files(error: object) -> bool:
    """Tell whether an error says that no file is left."""
    number = getattr(error, "errno", None)
    return number in NUMBERS
