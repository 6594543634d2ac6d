"""Programs that a promise is tried with: where one is missing, a skip says what was not tried."""

import shutil
from pathlib import Path

import pytest


def needs(program: str, promise: str) -> pytest.MarkDecorator:
    """Return a mark that skips a test where a program is not in the path; ``promise`` is what it would have tried."""
    return pytest.mark.skipif(shutil.which(program) is None, reason=untried(program, promise))


def needs_proc(promise: str) -> pytest.MarkDecorator:
    """Return a mark that skips a test where a process cannot tell its memory and files, as on all but Linux."""
    return pytest.mark.skipif(
        not Path("/proc/self/stat").exists(), reason=untried("/proc", promise)
    )


def untried(program: str, promise: str) -> str:
    """Return the reason of a skip, in the words that all of them have."""
    return f"{program} is not here: {promise} was not tried"
