"""Runs Spin on a model: every order of steps, within the bounds of a configuration."""

import re
import shutil
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

HERE: Final = Path(__file__).parent
PROGRAMS: Final = ("spin", "cc")
# Without -O: to optimize takes longer than the search of a small configuration.
COMPILER_OPTIONS: Final = ("-w", "-DSAFETY", "-DNOREDUCE", "-DCOLLAPSE", "-DVECTORSZ=512")
LONGEST_PATH: Final = 20_000
STATES: Final = re.compile(r"^\s*(\S+) states, stored", re.MULTILINE)
VIOLATION: Final = re.compile(r"^pan:1: (.*)$", re.MULTILINE)
BOUND: Final = "max search depth too small"


@dataclass(frozen=True, slots=True)
class Configuration:
    """A model, and what may happen in it."""

    model: str
    """``tallies``, ``rollback``, ``shards`` or ``names``."""
    defines: str = ""
    """Such as ``KILLS=1 LATE``; each has a comment in the model."""

    @property
    def options(self) -> list[str]:
        """What the preprocessor gets."""
        return [f"-D{name}" for name in self.defines.split()]

    def without(self, protection: str) -> "Configuration":
        """Return the same, with a protection taken out."""
        return Configuration(self.model, f"{self.defines} WITHOUT_{protection}".strip())

    def __str__(self) -> str:
        """Name it, as a test is named."""
        return " ".join([self.model, self.defines]).strip()


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the search found."""

    is_exhausted: bool
    """Whether every state was visited."""
    violation: str
    """The assertion that does not hold; empty if all hold."""
    story: Sequence[str]
    """The steps that lead there, in words."""
    states: int
    seconds: float

    def __str__(self) -> str:
        """Say it in some lines."""
        if self.violation:
            numbered = [f"{place:4}  {step}" for place, step in enumerate(self.story, 1)]
            return "\n".join([self.violation, *numbered])
        end = "all" if self.is_exhausted else "not all"
        return f"no error in {self.states:,} states ({end} of them), {self.seconds:.0f} s"


def missing_programs() -> list[str]:
    """Return the programs that a check needs, and that are not here."""
    return [name for name in PROGRAMS if not shutil.which(name)]


def check(configuration: Configuration, *, seconds: float, megabytes: int = 4096) -> Verdict:
    """Search all states, within a time and a memory.

    Raises:
        subprocess.CalledProcessError: the model is no Promela.
    """
    with TemporaryDirectory(prefix="tally-model-") as folder:
        return _checked(configuration, Path(folder), seconds, megabytes)


def _checked(
    configuration: Configuration,
    folder: Path,
    seconds: float,
    megabytes: int,
) -> Verdict:
    model = f"{configuration.model}.pml"
    shutil.copy(HERE / model, folder)
    _run(folder, "spin", "-a", *configuration.options, model)
    limit = f"-DMEMLIM={megabytes}"
    _run(folder, "cc", *COMPILER_OPTIONS, limit, "-o", "pan", "pan.c")
    began = time.monotonic()
    found = _search(folder, seconds)
    violation = VIOLATION.search(found)
    states = STATES.search(found)
    return Verdict(
        is_exhausted=bool(states) and BOUND not in found and "out of memory" not in found,
        violation=violation[1] if violation else "",
        story=_story(folder, configuration) if violation else (),
        states=int(float(states[1])) if states else 0,
        seconds=time.monotonic() - began,
    )


def _search(folder: Path, seconds: float) -> str:
    """Return what the search prints; a part of it if time is over."""
    command = ["./pan", f"-m{LONGEST_PATH}"]
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=seconds, check=False
        )
    except subprocess.TimeoutExpired:
        return ""
    return done.stdout


def _story(folder: Path, configuration: Configuration) -> list[str]:
    """Return what the steps of a counterexample print."""
    model = f"{configuration.model}.pml"
    printed = _run(folder, "spin", "-t", "-B", *configuration.options, model)
    lines = [line.strip() for line in printed.splitlines()]
    return [line for line in lines if line.endswith(".")]


def _run(folder: Path, *command: str) -> str:
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=120, check=True
    )
    return done.stdout
