"""Command lines in manifests and units, read by the program's own parser."""

from collections.abc import Sequence
from typing import Any

from typer.main import get_command

from worker.cli.commands import app


def arguments(words: Sequence[str]) -> tuple[str, dict[str, Any]]:
    """Return the command and its arguments; run nothing. ``words`` come after ``tally``.

    Example: ``("verify", "--json")`` gives ``("verify", {"as_json": True, …})``.

    Raises:
        KeyError: there is no such command.
        click.UsageError: the command does not take these arguments.
    """
    name, *rest = words
    program: Any = get_command(app)
    return name, program.commands[name].make_context(name, rest).params
