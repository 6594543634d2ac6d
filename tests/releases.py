"""The code of releases, out of git's history, to run beside today's."""

import io
import subprocess
import tarfile
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
PACKAGES: Final = ("worker", "client")

Environment = dict[str, str]
"""Variables of a process that runs the code of a release; empty for today's."""

TODAY: Final[Environment] = {}


class NoHistoryError(Exception):
    """Git cannot say what a release was. The message says why, and what to do."""


def checked_out(reference: str, folder: Path) -> Environment:
    """Put the code of a commit or tag into a folder.

    A process with this environment runs it, with the libraries of this checkout.

    Raises:
        NoHistoryError: this checkout does not have it.
    """
    commit = commit_of(reference)
    archive = _git("archive", "--format=tar", commit, *PACKAGES)
    with tarfile.open(fileobj=io.BytesIO(archive)) as files:
        files.extractall(folder, filter="data")
    # They come before what is installed in the virtual environment.
    return {"PYTHONPATH": f"{folder}:{folder / 'client'}", "PYTHONDONTWRITEBYTECODE": "1"}


def commit_of(reference: str) -> str:
    """Return the whole name of a commit.

    Raises:
        NoHistoryError: this checkout does not have it.
    """
    wanted = f"{reference}^{{commit}}"
    return _git("rev-parse", "--verify", "--quiet", "--end-of-options", wanted).decode().strip()


def _git(*arguments: str) -> bytes:
    command = ["git", "-C", str(ROOT), *arguments]
    try:
        return subprocess.run(command, capture_output=True, check=True).stdout
    except FileNotFoundError as error:
        raise NoHistoryError("The code of a release is in git's history: install git.") from error
    except subprocess.CalledProcessError as error:
        reason = error.stderr.decode(errors="replace").strip()
        raise NoHistoryError(
            f"This checkout does not have {arguments[-1].removesuffix('^{commit}')}. "
            f"If it is a shallow one, type: git fetch --unshallow --tags. {reason}".strip()
        ) from error
