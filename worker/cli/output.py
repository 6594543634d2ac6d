"""What commands print on standard output."""

import json
from collections.abc import Iterable

import typer


def print_json(document: object) -> None:
    """Print a document as one line of JSON in ASCII."""
    typer.echo(json.dumps(document, ensure_ascii=True))


def print_lines(lines: Iterable[str]) -> None:
    """Print lines for people."""
    typer.echo("\n".join(lines))
