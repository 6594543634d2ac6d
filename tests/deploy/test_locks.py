"""The lock files are complete, so nothing is resolved when they are installed."""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Final

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import reaction_tally
import worker
from tests.deploy.dockerfile import ROOT

PROJECT: Final = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
CLIENT: Final = tomllib.loads((ROOT / "client/pyproject.toml").read_text(encoding="utf-8"))
PYTHONS: Final = ("3.11.0", "3.11.13", "3.12.0", "3.13.0")
"""The floor to its first patch release, where a few more packages are needed, and the others."""
NO_TEXTS: Final = (".json", ".png")
"""Files of deploy/ in which no command is written down."""
PLATFORMS: Final = ("linux", "darwin")

Environment = dict[str, str]


def environment(python: str, platform: str) -> Environment:
    """Return the marker environment of a Python on a platform."""
    system = {"linux": "Linux", "darwin": "Darwin"}[platform]
    minor = ".".join(python.split(".")[:2])
    versions = {
        "python_version": minor,
        "python_full_version": python,
        "implementation_version": python,
    }
    return {
        **dict(default_environment()),
        **versions,
        "sys_platform": platform,
        "platform_system": system,
    }


def group(name: str) -> Iterator[str]:
    """Yield the requirements of a dependency group, those of the groups it includes, too."""
    for entry in PROJECT["dependency-groups"][name]:
        if isinstance(entry, str):
            yield entry
        else:
            yield from group(entry["include-group"])


OURS: Final = f"{CLIENT['project']['name']}=={worker.__version__}"
"""The client comes from this checkout, so no lock has it."""
RUNTIME: Final = [
    *[text for text in PROJECT["project"]["dependencies"] if text != OURS],
    *CLIENT["project"]["dependencies"],
    *PROJECT["project"]["optional-dependencies"]["embedded"],
]
TESTING: Final = CLIENT["project"]["optional-dependencies"]["testing"]
"""What the tests of applications need. Our tests of that need it, too."""
LOCKS: Final = {
    "requirements.lock": RUNTIME,
    "requirements-dev.lock": [*RUNTIME, *TESTING, *group("dev")],
    "requirements-build.lock": list(group("build")),
}


def lines_of(lock: str) -> list[str]:
    """Return the lines of a lock file, each with its hashes."""
    return (ROOT / lock).read_text(encoding="utf-8").replace("\\\n", " ").splitlines()


def versions_in(lock: str, here: Environment) -> dict[str, str]:
    """Return name → version of what a lock installs in an environment."""
    lines = [Requirement(line.partition(" --hash=")[0]) for line in lines_of(lock)]
    wanted = [line for line in lines if not line.marker or line.marker.evaluate(here)]
    return {canonicalize_name(line.name): str(line.specifier).removeprefix("==") for line in wanted}


def requirements_of(name: str, version: str) -> list[str]:
    """Return what an installed distribution requires; skip one that is not needed here."""
    installed = distribution(name)
    assert installed.version == version, (
        f"{name}: the lock has {version}, here is {installed.version}"
    )
    return installed.requires or []


@dataclass
class Walk:
    """A walk from what the project asks for to everything that needs, within a lock."""

    versions: dict[str, str]
    environment: Environment

    def __post_init__(self) -> None:
        """Nothing is reached yet."""
        self.reached: set[str] = set()
        self.problems: list[str] = []
        self.seen: set[tuple[str, str]] = set()

    def follow(self, text: str, wanted_by: str, extra: str = "") -> None:
        """Follow one requirement, if it applies."""
        requirement = Requirement(text)
        if requirement.marker and not requirement.marker.evaluate(
            {**self.environment, "extra": extra}
        ):
            return
        name = canonicalize_name(requirement.name)
        version = self.versions.get(name)
        if version is None or not requirement.specifier.contains(version, prereleases=True):
            self.problems.append(f"{wanted_by} wants {text}; the lock has {version}")
            return
        self.reached.add(name)
        for wanted_extra in ("", *requirement.extras):
            if (name, wanted_extra) not in self.seen:
                self.seen.add((name, wanted_extra))
                self._descend(name, version, wanted_extra)

    def _descend(self, name: str, version: str, extra: str) -> None:
        try:
            needed = requirements_of(name, version)
        except PackageNotFoundError:
            # Only another Python or platform needs it. None of these needs anything.
            assert name in ELSEWHERE, f"{name} is locked and not installed"
            return
        for text in needed:
            self.follow(text, f"{name} {version}", extra)


ELSEWHERE: Final = {"async-timeout", "colorama"}
"""Locked for older patch releases of Python 3.11, and for Windows."""


def test_worker_and_client_have_one_version() -> None:
    """The worker asks for exactly that client."""
    assert reaction_tally.__version__ == worker.__version__
    assert OURS in PROJECT["project"]["dependencies"]


@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_holds_what_everything_in_it_requires_and_nothing_else(
    lock: str, python: str, platform: str
) -> None:
    """Without that, installing without resolving would hide what is missing."""
    here = environment(python, platform)
    versions = versions_in(lock, here)
    walk = Walk(versions, here)
    for text in LOCKS[lock]:
        walk.follow(text, "pyproject.toml")

    assert walk.problems == []
    assert versions.keys() - walk.reached == set()


def test_a_requirement_that_a_lock_lacks_is_noticed() -> None:
    """By name and version, also where only an extra asks for it."""
    here = environment("3.11.0", "linux")
    versions = versions_in("requirements.lock", here)
    del versions["hiredis"]
    versions["httpcore"] = "0.1"
    walk = Walk(versions, here)
    for text in RUNTIME:
        walk.follow(text, "pyproject.toml")

    assert sorted(problem.rpartition(";")[2] for problem in walk.problems) == [
        " the lock has 0.1",
        " the lock has None",
    ]


def test_the_lock_of_a_benchmark_names_no_address() -> None:
    """As every other lock: the machine says where packages come from."""
    lock = ROOT / "tests/benchmarks/contenders/node/package-lock.json"

    assert "://" not in lock.read_text(encoding="utf-8")


@pytest.mark.parametrize("lock", LOCKS)
def test_every_line_of_a_lock_is_exact_and_hashed(lock: str) -> None:
    """And names no address: the machine says where packages come from."""
    exact = re.compile(r"[\w.-]+==[\w.]+ (; [^#]+ )?\s*--hash=sha256:[0-9a-f]{64}")

    assert [line for line in lines_of(lock) if not exact.match(line)] == []
    assert "://" not in "".join(lines_of(lock))


# One package asks for another and an extra of it, as pytest-cov asks for coverage[toml].
ASKING: Final = ("asking", "1.0", "Requires-Dist: asked[more]>=1.0\n")
ASKED: Final = ("asked", "1.0", "Provides-Extra: more\n")
NEWER: Final = ("asked", "2.0", "Provides-Extra: more\n")
PROJECT_WHEEL: Final = ("project", "1.0", "Requires-Dist: asking\n")
CLIENT_WHEEL: Final = ("client", "1.0", "")
BACKEND: Final = """
import shutil
from pathlib import Path

def build_wheel(folder, *_, **__):
    (wheel,) = Path(".").glob("*.whl")
    shutil.copy(wheel, folder)
    return wheel.name

build_editable = build_wheel
"""


SCRIPTS: Final = "[console_scripts]\ntally = {module}:tell\n"


def write_wheel(
    folder: Path, name: str, version: str, metadata: str, module: str | None = None
) -> Path:
    """Write the smallest wheel that pip takes; with a ``module`` it has the program ``tally``."""
    path = folder / f"{name}-{version}-py3-none-any.whl"
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(path, "w") as wheel:
        code = f"version = {version!r}\ndef tell():\n    print('tally', version)\n"
        wheel.writestr(f"{module or name}.py", code)
        if module:
            wheel.writestr(f"{info}/entry_points.txt", SCRIPTS.format(module=module))
        wheel.writestr(
            f"{info}/METADATA",
            f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{metadata}",
        )
        wheel.writestr(
            f"{info}/WHEEL",
            "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        )
        wheel.writestr(f"{info}/RECORD", "")
    return path


def lock_line(wheel: Path) -> str:
    """Return a lock's line for this wheel."""
    name, version, *_ = wheel.name.split("-")
    return f"{name}=={version} --hash=sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}\n"


@pytest.fixture
def newcomer(tmp_path: Path) -> Path:
    """A checkout with locks of two packages, and an index folder that has a newer one of them."""
    index = tmp_path / "index"
    index.mkdir()
    wheels = [write_wheel(index, *package) for package in (ASKING, ASKED)]
    write_wheel(index, *NEWER)
    project = tmp_path / "project"
    project.mkdir()
    shutil.copy(ROOT / "Makefile", project)
    (project / "requirements-build.lock").write_text("")
    for name in ("requirements.lock", "requirements-dev.lock"):
        (project / name).write_text("".join(map(lock_line, wheels)))
    (project / "client").mkdir()
    write_wheel(project, *PROJECT_WHEEL, module="project")
    write_wheel(project / "client", *CLIENT_WHEEL)
    for folder in (project, project / "client"):
        (folder / "backend.py").write_text(BACKEND)
        (folder / "pyproject.toml").write_text(
            '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
        )
    return project


def make(project: Path, *words: str, umask: int = -1) -> subprocess.CompletedProcess[str]:
    """Run make there, with that index folder and no other."""
    environment = {
        name: text
        for name, text in os.environ.items()
        if not name.startswith(("PIP_", "MAKE", "MFLAGS", "VENV"))
    }
    environment |= {
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(project.parent / "index"),
        "PIP_CONFIG_FILE": os.devnull,
    }
    command = ["make", f"PYTHON={sys.executable}", *words]
    return subprocess.run(
        command,
        cwd=project,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        umask=umask,
    )


def test_what_is_locked_is_installed_although_a_newer_release_exists(newcomer: Path) -> None:
    """By each command that people type. The pip of Python 3.11 fails here if it resolves."""
    for target in ("install", ".venv/.run", ".venv/.dev"):
        made = make(newcomer, target)
        assert made.returncode == 0, made.stderr
        code = "import asked, asking, client, project; print(asked.version, asking.version)"
        said = subprocess.run(
            [newcomer / ".venv/bin/python", "-c", code], capture_output=True, check=True
        ).stdout
        assert said == b"1.0 1.0\n"


def test_what_root_installs_is_readable_whatever_the_umask(newcomer: Path) -> None:
    """Else the worker's user may not run it, and systemd says no more than 203/EXEC."""
    made = make(newcomer, "install", umask=0o077)

    assert made.returncode == 0, made.stderr
    folder = newcomer / ".venv"
    installed = [path for path in folder.rglob("*") if not path.name.startswith(".")]
    assert [path for path in (folder, *installed) if not path.stat().st_mode & 0o004] == []


def test_an_install_goes_on_after_one_without_pip(newcomer: Path) -> None:
    """Debian's python3 without python3-venv leaves such a folder, and says what to install."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", newcomer / ".venv"], check=True)

    made = make(newcomer, "install")

    assert made.returncode == 0, made.stderr
    assert made.stdout.endswith("tally 1.0\n")


def test_an_upgrade_keeps_the_program_that_had_the_clients_name(newcomer: Path) -> None:
    """The worker was the distribution ``reaction-tally``, which now is the client."""
    older = write_wheel(newcomer.parent, "client", "0.9", "", module="project")
    made = make(newcomer, ".venv/.built")
    assert made.returncode == 0, made.stderr
    pip = f"{newcomer}/.venv/bin/python -m pip install --no-index --no-deps"
    subprocess.run([*pip.split(), older], check=True, capture_output=True)

    made = make(newcomer, "install")

    assert made.returncode == 0, made.stderr
    assert made.stdout.endswith("tally 1.0\n")


def commands_of_pip() -> Iterator[tuple[str, str]]:
    """Yield each command that installs or builds, and the file it is written down in."""
    for path in [*ROOT.glob("[A-Z]*"), *(ROOT / "deploy").rglob("*")]:
        if path.is_file() and path.suffix not in NO_TEXTS:
            text = path.read_text(encoding="utf-8").replace("\\\n", " ")
            for command in re.split(r"\n|&&|;", text):
                if re.search(r"\bpip3? .*\b(install|wheel)\b", command):
                    yield command.strip(), path.name


def test_every_command_that_installs_a_lock_resolves_nothing() -> None:
    """Every written command fetches only what is locked and hashed."""
    found = list(commands_of_pip())

    assert {name for _, name in found} == {"Makefile", "Dockerfile"}
    assert [command for command, _ in found if "--no-deps" not in command] == []
    assert [
        command for command, _ in found if ".lock" in command and "--require-hashes" not in command
    ] == []
    assert "LOCKED := $(PIP) --require-hashes\n" in (ROOT / "Makefile").read_text(encoding="utf-8")
