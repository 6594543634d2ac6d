"""Running the tests on a mutant, in a copy of the project that is nobody else's."""

import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from tests.mutants.mutant import Mutant
from tests.mutants.targets import ROOT

PARTS: Final = ("worker", "tests", "pyproject.toml")
PYTEST: Final = (sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "--no-cov")
QUICK: Final = ("-p", "tests.mutants.unshrunk", "--assert=plain")  # whether it fails, not how
SEED: Final = "--hypothesis-seed=0"  # the same mutants survive each time
TIMEOUT_SECONDS: Final = 60.0


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
    seconds: float


class Laboratory:
    """A copy of the project, on which one mutant after the other is tried."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "project"
        self._environment = {**os.environ, "TMPDIR": str(folder)}
        for part in PARTS:
            if (ROOT / part).is_dir():
                shutil.copytree(ROOT / part, self._folder / part, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy2(ROOT / part, self._folder / part)

    def try_out(self, mutant: Mutant, selections: Sequence[str]) -> Ended:
        """Run the selections on the mutant, until one fails; the copy is as it was afterwards."""
        path = self._folder / mutant.target
        original = path.read_text(encoding="utf-8")
        path.write_text(mutant.text, encoding="utf-8")
        try:
            return self.run(selections, mutant.target)
        finally:
            path.write_text(original, encoding="utf-8")

    def run(self, selections: Sequence[str], changed: str | None = None) -> Ended:
        """Run the selections until one fails; ``changed`` is a file whose compiled form must not be believed."""
        begun, ended = time.monotonic(), Ended(Verdict.SURVIVED, "", 0)
        environment = dict(self._environment)
        if changed is not None:
            environment["PYTHONDONTWRITEBYTECODE"] = "1"
            for compiled in (self._folder / changed).parent.glob(f"__pycache__/{Path(changed).stem}.*"):
                compiled.unlink()
        for selection in selections:
            verdict, said = self._pytest(selection, environment)
            ended = Ended(verdict, said, time.monotonic() - begun)
            if verdict is not Verdict.SURVIVED:
                break
        return ended

    def _pytest(self, selection: str, environment: dict[str, str]) -> tuple[Verdict, str]:
        process = subprocess.Popen(
            [*PYTEST, *QUICK, SEED, *shlex.split(selection)],
            cwd=self._folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        try:
            said, _ = process.communicate(timeout=TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            return Verdict.TIMED_OUT, ""
        finally:
            _end(process)
        return Verdict.KILLED if process.returncode else Verdict.SURVIVED, said[-2000:]


def _end(process: subprocess.Popen[str]) -> None:
    """End what a run has started and not ended, a server too: all of it is in the session of its own."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    process.wait()


@contextmanager
def laboratories(count: int) -> Iterator[list[Laboratory]]:
    """Yield so many copies of the project; they are gone afterwards."""
    with TemporaryDirectory(prefix="mutants-") as folder:
        rooms = [Path(folder) / str(number) for number in range(count)]
        yield [Laboratory(room) for room in rooms]
