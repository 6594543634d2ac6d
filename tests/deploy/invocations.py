"""Command lines that stand in a file, read by the program's own parser."""

from collections.abc import Sequence
from typing import Any

from typer.main import get_command

from worker.cli.commands import app


def arguments(words: Sequence[str]) -> tuple[str, dict[str, Any]]:
    """Return the command that these words (after ``tally``) are, and its arguments; nothing is run.

    What is no command of ours is a KeyError; what it does not take, the parser's own error.
    """
    name, *rest = words
    program: Any = get_command(app)
    return name, program.commands[name].make_context(name, rest).params
