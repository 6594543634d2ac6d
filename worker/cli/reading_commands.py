"""The commands that read tallies: show, explain, top, tail and channels.

A command loads what it needs when it runs, and the terminal's colours only on a terminal.
"""

import time
from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING

import typer

from worker.cli import options
from worker.cli.arguments import check_message_timetoken, check_text, moment
from worker.cli.interrupts import finish
from worker.cli.reports import print_result

if TYPE_CHECKING:
    from rich.console import Console

    from reaction_tally import Reset
    from worker.cli.changes import ChangePrinter
    from worker.reading.past import TimedChange

USERS_ON_A_SCREEN = 3
"""First users of each reaction."""


def show(
    channel: options.Channel,
    message_timetoken: options.MessageTimetoken,
    me: options.Me = None,
    names: options.FirstUsers = None,
    who: options.WhoChose = None,
    as_json: options.AsJson = False,
) -> None:
    """Print the tallies of one message: how many, who first, and since when."""
    from worker.cli import reading_reports as reports
    from worker.reading.show import read_message

    check_message_timetoken(message_timetoken)
    check_text(me, "--me")
    check_text(who, "--who")
    if who is not None:
        _show_who(channel, message_timetoken, who, as_json=as_json)
        return
    url, namespace = _redis_to_read()
    console = _terminal(as_json)
    users = names
    if users is None:
        users = USERS_ON_A_SCREEN if console or as_json else 0
    reading = read_message(url, namespace, channel, message_timetoken, me=me, users=users)
    shown = finish(reading)
    if not as_json and not shown.is_known:
        typer.echo(reports.unknown_line(channel, namespace))
        return
    if console:
        from worker.cli.screens.message import print_message

        print_message(console, shown, time.time())
    else:
        document = partial(reports.message_json, shown)
        print_result(as_json, document, reports.message_lines(shown))
    if shown.in_doubt:
        _warn(reports.doubt_line([channel]))


def _show_who(
    channel: str,
    message_timetoken: str,
    value: str,
    *,
    as_json: bool,
) -> None:
    """Print everybody who chose a value."""
    from worker.cli import reading_reports as reports
    from worker.reading.show import read_choosers

    url, namespace = _redis_to_read()
    reading = read_choosers(url, namespace, channel, message_timetoken, value)
    choosers = finish(reading)
    document = {
        "channel": channel,
        "message_timetoken": message_timetoken,
        "value": value,
        **reports.choosers_json(choosers),
    }
    lines: Iterable[str] = reports.choosers_lines(choosers)
    if not choosers.is_known:
        lines = [reports.unknown_line(channel, namespace)]
    print_result(as_json, lambda: document, lines)


def explain(
    channel: options.Channel,
    message_timetoken: options.MessageTimetoken,
    as_json: options.AsJson = False,
) -> None:
    """Print each change of one message that the journal remembers, with its time and origin."""
    from worker.cli import reading_reports as reports
    from worker.reading.explain import explain_message, explanation_json, explanation_lines

    check_message_timetoken(message_timetoken)
    url, namespace = _redis_to_read()
    reading = explain_message(url, namespace, channel, message_timetoken)
    explanation = finish(reading)
    document = {
        "channel": channel,
        "message_timetoken": message_timetoken,
        **explanation_json(explanation),
    }
    lines: Iterable[str] = explanation_lines(explanation)
    if not explanation.is_known:
        lines = [reports.unknown_line(channel, namespace)]
    print_result(as_json, lambda: document, lines)


def top(
    channel: options.OneChannel = None,
    type: options.OfType = None,
    value: options.OfValue = None,
    since: options.Since = None,
    limit: options.TopLimit = 10,
    as_json: options.AsJson = False,
) -> None:
    """Print the messages with the most reactions, of one channel or of the busiest ones."""
    from worker.cli import reading_reports as reports
    from worker.reading.top import Wanted, read_top

    check_text(type, "--type")
    check_text(value, "--value")
    wanted = Wanted(type=type, value=value, since=moment(since, "--since"), limit=limit)
    url, namespace = _redis_to_read()
    console = _terminal(as_json)
    found = finish(read_top(url, namespace, channel, wanted))
    if channel and not found.is_known and not as_json:
        typer.echo(reports.unknown_line(channel, namespace))
        return
    if console:
        from worker.cli.screens.top import print_top

        print_top(console, found, channel, time.time())
    else:
        print_result(as_json, partial(reports.top_json, found), reports.top_lines(found))
    for failure in found.failures:
        _warn(failure)
    if found.in_doubt:
        _warn(reports.doubt_line(found.in_doubt))


def channels(
    pattern: options.Pattern = "*",
    owed: options.OnlyOwed = False,
    limit: options.ChannelLimit = 50,
    as_json: options.AsJson = False,
) -> None:
    """Print the channels: when each changed last, what it is owed, and when it was proven.

    Owed: events may have been missed, and a repair follows.
    Proven: up to then, the counts were compared with PubNub's list, and nothing was left in doubt.
    In full: the whole list, not only the recent past.

    Those that are owed a repair come first, then those that changed last.
    """
    from worker.cli import reading_reports as reports
    from worker.reading.channels import Choice, read_channels

    choice = Choice(pattern=pattern, is_owed=owed, limit=limit)
    url, namespace = _redis_to_read()
    console = _terminal(as_json)
    now = time.time()
    listed = finish(read_channels(url, namespace, choice, now))
    if console:
        from worker.cli.screens.channels import print_channels

        print_channels(console, listed, now)
        return
    document = partial(reports.channels_json, listed)
    print_result(as_json, document, reports.channels_lines(listed))


def tail(
    channels: options.TailedChannels,
    since: options.TailSince = None,
    count: options.ChangeCount = None,
    exit_at_end: options.ExitAtEnd = False,
    template: options.ChangeFormat = None,
    as_json: options.AsJsonLines = False,
) -> None:
    """Print changes of counts as they happen: JSON lines, or rows on a terminal.

    Without a channel, those of every channel. Goes on until Ctrl-C.
    """
    from worker.cli.changes import journal_id_before
    from worker.reading.tail import TailQuery, read_tail

    if template is not None and as_json:
        raise typer.BadParameter("--format and --json are two forms of a line: give one.")
    if since is None and exit_at_end:
        since = "begin"
    last = None if since is None else journal_id_before(since)
    printer = _change_printer(template, count, as_json=as_json)
    query = TailQuery(tuple(channels), last, is_followed=not exit_at_end)
    url, namespace = _redis_to_read()
    finish(printer.print_all(read_tail(url, namespace, query)))


def _change_printer(
    template: str | None,
    count: int | None,
    *,
    as_json: bool,
) -> "ChangePrinter":
    """Return what prints changes as they are wanted."""
    from worker.cli import changes

    if template is not None:
        form = changes.Template(template)
        return changes.ChangePrinter(
            lambda change: typer.echo(form.line(change)),
            lambda reset: changes.say(changes.reset_line(reset)),
            count,
        )
    console = _terminal(as_json)
    if console:
        from worker.cli.screens.changes import ChangeRows

        rows = ChangeRows(console)
        return changes.ChangePrinter(rows.write, rows.write_reset, count)

    def write(event: "TimedChange | Reset") -> None:
        typer.echo(changes.json_line(event))

    return changes.ChangePrinter(write, write, count)


def _terminal(as_json: bool) -> "Console | None":
    """Return the terminal that results are shown on; None for lines and JSON."""
    import sys

    if as_json or not sys.stdout.isatty():
        return None
    from worker.cli.screens.terminal import terminal

    return terminal()


def _warn(line: str) -> None:
    typer.echo(f"tally: {line}", err=True)


def _redis_to_read() -> tuple[str | None, str]:
    """Return the URL of Redis and the namespace.

    Without a URL the folder's own Valkey is read. It is started if it is down.
    """
    from worker.settings.checks import REDIS_ONLY, load

    settings = load(REDIS_ONLY)
    if not settings.redis_url:
        from worker.telemetry.logs import configure  # that Valkey logs its errors

        configure(settings.log_format, settings.log_level, is_quiet=True)
    return settings.redis_url, settings.namespace
