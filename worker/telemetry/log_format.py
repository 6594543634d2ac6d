"""How entries of the log are written. The settings know this, and load no log."""

from enum import StrEnum


class LogFormat(StrEnum):
    """How entries are written; ``auto`` is readable text on a terminal, else JSON."""

    AUTO = "auto"
    JSON = "json"
    CONSOLE = "console"
