"""Asks the person at the terminal before something is deleted."""

import sys

import typer

from worker.errors import ConfigurationError


def confirm(question: str, deletes: str) -> None:
    """End the command unless the answer is yes. ``deletes`` says which command deletes what.

    Raises:
        ConfigurationError: standard input is closed, or no terminal.
    """
    if not sys.stdin or not sys.stdin.isatty():
        raise ConfigurationError(f"{deletes}. Nobody can be asked: add --yes.")
    typer.confirm(question, abort=True, err=True)
