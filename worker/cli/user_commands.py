"""The commands about users: ``tally users …``."""

import sys
from functools import partial
from typing import TYPE_CHECKING

import typer

from worker.cli import options
from worker.cli.confirm import confirm
from worker.cli.interrupts import finish
from worker.cli.reports import print_result
from worker.errors import ConfigurationError

if TYPE_CHECKING:
    from worker.settings import Settings

FROM_INPUT = "-"
"""Stands for the lines of standard input: a command line is seen by everybody on the machine."""

users = typer.Typer(no_args_is_help=True, help="Show what is kept of users, or forget them.")


@users.command()
def export(
    uuids: options.Users,
    as_json: options.AsJson = False,
) -> None:
    """Print everything that is kept of users; write nothing."""
    from worker.cli import user_reports
    from worker.service.users import run_export

    wanted = _wanted(uuids)
    work = run_export(_settings(), wanted)
    exports = finish(work)
    document = partial(user_reports.export_json, exports)
    lines = user_reports.export_lines(exports)
    print_result(as_json, document, lines)


@users.command()
def forget(
    uuids: options.Users,
    undo: options.Undo = False,
    yes: options.Yes = False,
    as_json: options.AsJson = False,
) -> None:
    """Delete what is kept of users, count exactly without them, and refuse their later events.

    PubNub keeps their actions: export them first, to have a list of what to remove there.
    """
    from worker.cli import user_reports
    from worker.cli.waiting import wait_visibly
    from worker.service.users import run_forget_users, run_undo

    wanted = _wanted(uuids)
    if undo:
        undone = finish(run_undo(_settings(), wanted))
        document = partial(user_reports.undo_json, len(wanted), undone)
        print_result(as_json, document, user_reports.undo_lines(len(wanted), undone))
        return
    settings = _settings()
    if not yes:
        people = "this user" if len(wanted) == 1 else f"these {len(wanted)} users"
        question = f"Delete everything that is kept of {people}?"
        confirm(question, "tally users forget deletes reactions")
    report = finish(run_forget_users(settings, wanted, wait_visibly))
    document = partial(user_reports.forget_json, len(wanted), report)
    print_result(as_json, document, user_reports.forget_lines(len(wanted), report))


def _settings() -> "Settings":
    """Return the settings for Redis. On a terminal, beside progress, only errors are logged."""
    from worker.settings.checks import REDIS_WRITES, load
    from worker.telemetry.logs import configure

    settings = load(REDIS_WRITES)
    configure(settings.log_format, settings.log_level, is_quiet=sys.stderr.isatty())
    return settings


def _wanted(uuids: list[str]) -> list[str]:
    """Return the users, each once."""
    wanted = dict.fromkeys(uuids)
    if FROM_INPUT in wanted:
        del wanted[FROM_INPUT]
        wanted |= dict.fromkeys(_lines_of_input())
    if not wanted:
        raise ConfigurationError("Standard input names no user: write one uuid a line.")
    if "" in wanted:
        raise ConfigurationError("A uuid is empty. Is a variable of the shell not set?")
    if not all(map(_is_text, wanted)):
        raise ConfigurationError("A uuid is no text in UTF-8. Read it from standard input: -.")
    return list(wanted)


def _is_text(uuid: str) -> bool:
    """Tell whether a uuid has no bytes of another encoding, as Python reads a command line."""
    return uuid.encode(errors="replace").decode() == uuid


def _lines_of_input() -> list[str]:
    # Not as text: under cron or in a container the locale lets any byte through,
    # and nobody of a file in another encoding would be forgotten.
    held = sys.stdin.buffer.read() if sys.stdin else b""
    try:
        text = held.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ConfigurationError("Standard input is no text in UTF-8.") from None
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    return list(filter(None, lines))
