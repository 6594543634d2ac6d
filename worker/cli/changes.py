"""``tally tail``: a line for each change, as JSON or by a template."""

import json
import string
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from typing import Final

import typer

from reaction_tally import Reset
from reaction_tally.journal import START
from reaction_tally.keys import is_position
from worker.cli.arguments import moment
from worker.cli.times import iso
from worker.domain.position import milliseconds
from worker.errors import ConfigurationError
from worker.reading.past import TimedChange
from worker.reading.tail import Event, Notice
from worker.telemetry.text import escape

NAMES: Final = (
    "time",
    "event",
    "channel",
    "message_timetoken",
    "type",
    "value",
    "count",
    "position",
)
"""What a change has: in JSON, and in a template."""
BEGIN: Final = "begin"
"""As far as the journals reach back."""
LAST_NUMBER: Final = 2**64 - 1
"""The highest number of an entry within its millisecond."""


def journal_id_before(since: str) -> str:
    """Return the id of the last entry in a journal that is not wanted.

    ``since`` is ``begin``, a position such as ``1760000000123-0``, or a moment.

    Raises:
        ConfigurationError: it is none of these.
    """
    if since == BEGIN:
        return START
    if is_position(since):
        return since
    try:
        timetoken = moment(since, "--since") or ""
    except ConfigurationError as error:
        sentence = str(error).removesuffix(".")
        raise ConfigurationError(
            f"{sentence}; or 'begin', or a position such as 1760000000123-0."
        ) from None
    before = max(0, milliseconds(timetoken) - 1)
    return f"{before}-{LAST_NUMBER}"


def change_json(event: TimedChange | Reset) -> dict[str, object]:
    """Return a change for programs; its time is Redis's, in UTC."""
    if isinstance(event, Reset):
        return {
            "event": "reset",
            "channel": event.channel,
            "position": event.position,
        }
    change = event.change
    return {
        "time": iso(event.at),
        "event": "expired" if change.ends_message else "count",
        "channel": change.channel,
        "message_timetoken": change.message_timetoken,
        "type": change.type,
        "value": change.value,
        "count": change.count,
        "position": change.position,
    }


def json_line(event: TimedChange | Reset) -> str:
    """Return one JSON object in ASCII."""
    return json.dumps(change_json(event), ensure_ascii=True)


class Template:
    r"""A line with names in braces: ``{channel} {value} {count}``.

    A template knows ``\t`` and ``\n``, because a shell does not.
    """

    def __init__(self, text: str) -> None:
        """Read a template.

        Raises:
            ConfigurationError: its braces hold anything else than names of a change.
        """
        self._text = text.replace(r"\t", "\t").replace(r"\n", "\n")
        try:
            flaws = list(filter(None, map(_flaw, self._parts())))
        except ValueError as error:
            flaws = [f"{error}"]
        if flaws:
            names = ", ".join(map("{{{}}}".format, NAMES))
            raise ConfigurationError(
                f"--format cannot be used: {flaws[0]}. "
                f"The names are {names}. Write {{{{ for one brace."
            )

    def line(self, event: TimedChange) -> str:
        """Return a line. The text of users is escaped."""
        fields = change_json(event)
        texts = map(str, fields.values())
        shown = dict(zip(fields, map(escape, texts), strict=True))
        return self._text.format_map(shown)

    def _parts(self) -> Iterator[tuple[str | None, str]]:
        """Yield each name in braces, and what stands beside it there."""
        for _, name, form, conversion in string.Formatter().parse(self._text):
            yield name, f"{form or ''}{conversion or ''}"


def _flaw(part: tuple[str | None, str]) -> str:
    """Return why a part of a template is refused; an empty text if it is not."""
    name, others = part
    if others:
        return f"{name!r} has more than a name in its braces"
    if name is None or name in NAMES:
        return ""
    return f"{name!r} is no name of a change"


def reset_line(reset: Reset) -> str:
    """Return what is said where changes are missing."""
    name = escape(reset.channel)
    return f"{name}: changes may be missing here. tally show says what counts now."


def say(line: str) -> None:
    """Print a line on standard error."""
    typer.echo(f"tally: {line}", err=True)


class ChangePrinter:
    """Prints changes until enough are printed."""

    def __init__(
        self,
        write: Callable[[TimedChange], None],
        write_reset: Callable[[Reset], None],
        count: int | None = None,
    ) -> None:
        """``count`` is how many changes are enough. Resets are no changes."""
        self._write = write
        self._write_reset = write_reset
        self._left = count or -1

    async def print_all(self, events: AsyncGenerator[Event]) -> None:
        """Print what comes. Each line is flushed, so that a pipe has it at once."""
        async with aclosing(events):
            async for event in events:
                self._print(event)
                if not self._left:
                    return

    def _print(self, event: Event) -> None:
        if isinstance(event, Notice):
            say(escape(event.text))
        elif isinstance(event, Reset):
            self._write_reset(event)
        else:
            self._write(event)
            self._left -= 1
