"""The import contracts of ``pyproject.toml``: a new module has a place, or is refused."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of what import-linter reads."""
    for source in ("worker", "client/reaction_tally"):
        folder = tmp_path / Path(source).name
        shutil.copytree(ROOT / source, folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copyfile(ROOT / "pyproject.toml", tmp_path / "pyproject.toml")
    return tmp_path


def test_a_module_that_has_no_place_is_refused(copy: Path) -> None:
    """By its name, whatever it imports; the checkout as it is breaks nothing."""
    assert "0 broken" in lint(copy)

    add(copy, "helpers.py", "import redis\nimport pubnub\nfrom worker import service\n")
    add(copy, "more.py", "")
    said = lint(copy)

    for line in (
        "- worker.helpers\n",
        "- worker.more\n",
        "helpers -> redis (l.1)",
        "helpers -> pubnub (l.2)",
    ):
        assert line in said


def test_a_wrong_import_of_a_module_that_has_its_place_is_refused(copy: Path) -> None:
    """Upwards, around source or store, or into the emulator."""
    add(copy, "domain/clocks.py", "from worker.telemetry import logs\n")
    add(copy, "emulator/shortcut.py", "from worker.domain import entry\n")
    add(copy, "source/cache.py", "import redis.asyncio\n")
    add(copy, "store/answers.py", "import pubnub\nfrom worker.emulator import Emulator\n")
    said = lint(copy)

    assert "worker.domain.clocks -> worker.telemetry.logs (l.1)" in said
    assert "worker.emulator.shortcut -> worker.domain.entry (l.1)" in said
    assert "worker.source.cache -> redis (l.1)" in said
    assert "worker.store.answers -> pubnub (l.1)" in said
    assert "worker.store.answers -> worker.emulator" in said


def test_the_client_stands_alone(copy: Path) -> None:
    """Other programs install it without the worker."""
    add(copy, "shortcut.py", "from worker.domain import entry\n", "reaction_tally")
    said = lint(copy)

    assert "reaction_tally.shortcut -> worker.domain.entry" in said
    assert "- reaction_tally.shortcut\n" in said


def add(folder: Path, name: str, text: str, package: str = "worker") -> None:
    """Write a module into the copy."""
    (folder / package / name).write_text(text, encoding="utf-8")


def lint(folder: Path) -> str:
    """Return what import-linter says of a copy."""
    command = [
        sys.executable,
        "-c",
        "from importlinter.cli import lint_imports_command; lint_imports_command()",
    ]
    words = ["--no-logo", "--no-cache"]
    linted = subprocess.run(
        [*command, *words], cwd=folder, capture_output=True, text=True, check=False
    )
    assert not linted.stderr, linted.stderr
    return linted.stdout


def test_no_test_imports_another() -> None:
    """What tests share stands in a module of its own."""
    forbidden = re.compile(r"^\s*(?:from|import) tests\.\S*\b(?:test_\w+|conftest)\b", re.MULTILINE)
    tests = (ROOT / "tests").rglob("*.py")
    assert [str(path) for path in tests if forbidden.search(path.read_text("utf-8"))] == []
