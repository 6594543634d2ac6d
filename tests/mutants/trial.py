"""Running the tests on a mutant, in a copy of the project that is nobody else's."""

import compileall
import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Final, Self

from tests.mutants.mutant import Mutant
from tests.mutants.nursery import OUTPUT
from tests.mutants.targets import ROOT

PARTS: Final = ("worker", "tests", "pyproject.toml")
PYTEST: Final = ("-x", "-q", "-p", "no:cacheprovider", "--no-cov")
QUICK: Final = ("-p", "tests.mutants.unshrunk", "--assert=plain")  # whether it fails, not how
SEED: Final = "--hypothesis-seed=0"  # the same mutants survive each time


class Verdict(StrEnum):
    """What became of a mutant."""

    KILLED = "killed"
    TIMED_OUT = "timed out"
    """Killed, too: a test that never ends has noticed."""
    SURVIVED = "survived"


@dataclass(frozen=True, slots=True)
class Ended:
    """How a trial ended, and what the tests said last."""

    verdict: Verdict
    said: str


class Laboratory:
    """A copy of the project, on which one mutant after the other is tried."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "project"
        for part in PARTS:
            if (ROOT / part).is_dir():
                shutil.copytree(
                    ROOT / part, self._folder / part, ignore=shutil.ignore_patterns("__pycache__")
                )
            else:
                shutil.copy2(ROOT / part, self._folder / part)
        compileall.compile_dir(self._folder, quiet=2)
        self._nursery = subprocess.Popen(
            [sys.executable, "-m", "tests.mutants.nursery"],
            cwd=self._folder,
            # What is compiled while a mutant stands there must not be believed afterwards.
            env={**os.environ, "TMPDIR": str(folder), "PYTHONDONTWRITEBYTECODE": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._nursery.stdin
        self._nursery.stdin.close()
        self._nursery.wait()

    def try_out(self, mutant: Mutant, selections: Sequence[str]) -> Ended:
        """Run the selections on the mutant, until one fails; the copy is as it was afterwards."""
        path = self._folder / mutant.target
        original = path.read_text(encoding="utf-8")
        path.write_text(mutant.text, encoding="utf-8")
        try:
            return self.run(selections)
        finally:
            path.write_text(original, encoding="utf-8")

    def run(self, selections: Sequence[str]) -> Ended:
        """Run the selections on what is there, until one fails."""
        ended = Ended(Verdict.SURVIVED, "")
        for selection in selections:
            ended = self._pytest(selection)
            if ended.verdict is not Verdict.SURVIVED:
                break
        return ended

    def _pytest(self, selection: str) -> Ended:
        assert self._nursery.stdin
        assert self._nursery.stdout
        self._nursery.stdin.write(
            json.dumps([*PYTEST, *QUICK, SEED, *shlex.split(selection)]) + "\n"
        )
        self._nursery.stdin.flush()
        answer = self._nursery.stdout.readline()
        if not answer:
            raise RuntimeError("the nursery has ended")
        said = (self._folder / OUTPUT).read_text(encoding="utf-8", errors="replace")[-2000:]
        verdicts = {"": Verdict.TIMED_OUT, "0": Verdict.SURVIVED}
        return Ended(verdicts.get(answer.strip(), Verdict.KILLED), said)


@contextmanager
def laboratories(count: int) -> Iterator[list[Laboratory]]:
    """Yield so many copies of the project; they are gone afterwards."""
    with TemporaryDirectory(prefix="mutants-") as folder, ExitStack() as stack:
        yield [
            stack.enter_context(Laboratory(Path(folder) / str(number))) for number in range(count)
        ]
