"""The code of a release comes out of git's history; without it, there are words and no failure."""

import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.keyspaces.copies import Copy
from tests.releases import ROOT, Environment, NoHistoryError, checked_out

UNKNOWN: Final = "0" * 40


def test_a_release_runs(copy: Copy, old: Environment, tmp_path: Path) -> None:
    """Its own code, worker and client, and not today's."""
    places = "import reaction_tally, worker; print(worker.__file__, reaction_tally.__file__)"
    ask = f"{places}; print(worker.__version__, reaction_tally.__version__)"
    command = [sys.executable, "-c", ask]

    said = subprocess.run(
        command, cwd=tmp_path, env=old, capture_output=True, text=True, check=True
    )

    files, versions = said.stdout.splitlines()
    assert all(file.startswith(str(tmp_path)) for file in files.split())
    assert versions.split() == [copy.made.version] * 2


def test_a_checkout_without_the_history_says_so(tmp_path: Path) -> None:
    """The sentence says what to type."""
    with pytest.raises(NoHistoryError, match=f"{UNKNOWN}.*git fetch --unshallow"):
        checked_out(UNKNOWN, tmp_path)


@pytest.mark.processes
def test_without_the_history_nothing_is_side_by_side() -> None:
    """It is skipped with a sentence, and exit code 0."""
    command = [sys.executable, "-m", "tests.chaos", "--old", UNKNOWN]

    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    assert said.returncode == 0, said.stderr
    assert said.stdout.startswith(f"skipped: This checkout does not have {UNKNOWN}.")
