"""Programs that a promise is tried with; without one, a skip says what was not tried."""

import shutil
import subprocess
from pathlib import Path

import pytest


def needs(program: str, promise: str) -> pytest.MarkDecorator:
    """Return a mark that skips a test without this program; ``promise`` is what it would try."""
    return pytest.mark.skipif(shutil.which(program) is None, reason=untried(program, promise))


def needs_proc(promise: str) -> pytest.MarkDecorator:
    """Return a mark that skips a test where /proc is missing, as on all but Linux."""
    return pytest.mark.skipif(
        not Path("/proc/self/stat").exists(), reason=untried("/proc", promise)
    )


def untried(program: str, promise: str) -> str:
    """Return the reason of a skip, in the words that all of them have."""
    return f"{program} is not here: {promise} was not tried"


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a program to its end; return its exit code and its output."""
    return subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
