"""A release's contract changes on purpose only."""

import json
import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

from tests.contract import GOLDEN, contract
from worker import __version__

ROOT = Path(__file__).parents[1]
CHANGELOG = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_the_contract_is_the_one_that_was_written_down() -> None:
    """Schema, settings, exit codes and metrics: `make contract` writes a change that is meant."""
    assert contract() == json.loads(GOLDEN.read_text(encoding="utf-8")), (
        "is it meant? See CONTRIBUTING.md"
    )


def test_the_changelog_begins_with_this_version() -> None:
    """Whoever upgrades finds what is new."""
    headings = [line for line in CHANGELOG.splitlines() if line.startswith("## ")]

    assert headings[0].startswith(f"## {__version__} — ")


def test_the_version_is_written_in_one_place() -> None:
    """The build reads it from there."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))

    assert project["project"]["dynamic"] == ["version"]
    assert project["tool"]["hatch"]["version"]["path"] == "worker/__init__.py"
    said = subprocess.run(
        [sys.executable, "-m", "worker", "--version"], capture_output=True, text=True, check=True
    )
    assert said.stdout == f"tally {__version__}\n"


def test_two_builds_of_one_version_are_the_same_wheel(tmp_path: Path) -> None:
    """To the last byte, though one checkout is younger and lies elsewhere."""
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copyfile(ROOT / name, tmp_path / name)
    for package in ("worker", "client"):
        shutil.copytree(ROOT / package, tmp_path / package, copy_function=shutil.copyfile)

    for project, name in ((".", "reaction_tally_worker"), ("client", "reaction_tally")):
        wheels = [
            build_wheel(checkout / project, tmp_path / f"built-{name}-{number}")
            for number, checkout in enumerate((ROOT, tmp_path))
        ]

        assert [wheel.name for wheel in wheels] == [f"{name}-{__version__}-py3-none-any.whl"] * 2
        assert wheels[0].read_bytes() == wheels[1].read_bytes()


def test_a_wheel_has_all_that_is_needed(tmp_path: Path) -> None:
    """The command, the scripts of Redis, the licence; and nothing of the other one."""
    with zipfile.ZipFile(build_wheel(ROOT, tmp_path / "worker")) as wheel:
        info = f"reaction_tally_worker-{__version__}.dist-info"
        assert {f"{info}/licenses/LICENSE", "worker/store/lua/apply.lua"} <= {*wheel.namelist()}
        assert "tally = worker.__main__:main" in wheel.read(f"{info}/entry_points.txt").decode()
        assert {name.partition("/")[0] for name in wheel.namelist()} == {"worker", info}
    with zipfile.ZipFile(build_wheel(ROOT / "client", tmp_path / "client")) as wheel:
        info = f"reaction_tally-{__version__}.dist-info"
        files = {"reaction_tally/lua/page.lua", "reaction_tally/py.typed"}
        assert {f"{info}/licenses/LICENSE", *files} <= {*wheel.namelist()}
        assert {name.partition("/")[0] for name in wheel.namelist()} == {"reaction_tally", info}


def build_wheel(checkout: Path, folder: Path) -> Path:
    """Build a wheel, as of a fixed moment; return where it is."""
    command = [
        sys.executable,
        "-m",
        "hatchling",
        "build",
        "--target",
        "wheel",
        "--directory",
        str(folder),
    ]
    environment = {**os.environ, "SOURCE_DATE_EPOCH": "1767225600"}
    subprocess.run(command, cwd=checkout, env=environment, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    return wheel
