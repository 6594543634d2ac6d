"""From a command line to an exit code.

A foreseen error is one sentence. Any other is one entry in the log.
"""

import io
import os
import sys
from typing import NoReturn

import typer

from worker.cli.commands import app
from worker.errors import ExitCode, TallyError
from worker.telemetry.text import escape


def main() -> NoReturn:
    """Run the command of ``sys.argv``, and end the process with its exit code."""
    _write_escapes_for_missing_characters()
    try:
        app(standalone_mode=True)
    except TallyError as error:
        lines = map(escape, str(error).splitlines())
        typer.echo("tally: " + "\n".join(lines), err=True)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        _discard_output()
        sys.exit(ExitCode.FAILED)
    except Exception:
        from worker.telemetry.logs import log_crash  # noqa: PLC0415 - only a crash needs the log

        log_crash()  # and prints nothing: the error's message may quote anything
        sys.exit(ExitCode.FAILED)
    sys.exit(ExitCode.DONE)


def _write_escapes_for_missing_characters() -> None:
    """Let a stream write an escape for what its encoding lacks."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _discard_output() -> None:
    """Discard what is left to write: the reader of the pipe has gone.

    Otherwise Python complains about the pipe again when it ends.
    """
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
