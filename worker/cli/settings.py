"""The settings of a command, and the log that they ask for."""

import sys

from worker.settings import Settings
from worker.settings.checks import CONNECTS, load
from worker.telemetry.logs import configure


def load_connecting_settings() -> Settings:
    """Return the settings of a command that needs PubNub and Redis.

    On a terminal, where its progress is shown, it logs only errors.
    """
    settings = load(CONNECTS)
    configure_log(settings, is_quiet=sys.stderr.isatty())
    return settings


def configure_log(settings: Settings, *, is_quiet: bool = False) -> None:
    """Configure the log; a quiet command logs only errors, except at level debug."""
    level = settings.log_level
    if is_quiet and level != "debug":
        level = "error"
    configure(settings.log_format, level)
