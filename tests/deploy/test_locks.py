"""The lock files are complete: an install resolves nothing, and no later release breaks it."""

import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from typing import Final, cast

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.deploy.dockerfile import ROOT

PROJECT: Final = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PYTHONS: Final = ("3.11.0", "3.11.13", "3.12.0", "3.13.0")
"""The floor to its first patch release, where a few more packages are needed, and the others."""
PLATFORMS: Final = ("linux", "darwin")

Environment = dict[str, str]


def environment(python: str, platform: str) -> Environment:
    """Return the marker environment of a Python on a platform."""
    system = {"linux": "Linux", "darwin": "Darwin"}[platform]
    return cast("Environment", default_environment()) | {
        "python_version": python.rpartition(".")[0],
        "python_full_version": python,
        "implementation_version": python,
        "sys_platform": platform,
        "platform_system": system,
    }


def group(name: str) -> Iterator[str]:
    """Yield the requirements of a dependency group and of the groups it includes."""
    for entry in PROJECT["dependency-groups"][name]:
        if isinstance(entry, str):
            yield entry
        else:
            yield from group(entry["include-group"])


RUNTIME: Final = [
    *PROJECT["project"]["dependencies"],
    *PROJECT["project"]["optional-dependencies"]["embedded"],
]
LOCKS: Final = {
    "requirements.lock": RUNTIME,
    "requirements-dev.lock": [*RUNTIME, *group("dev")],
    "requirements-build.lock": list(group("build")),
}


def lines_of(lock: str) -> list[str]:
    """Return the lines of a lock file, each with its hashes."""
    return (ROOT / lock).read_text(encoding="utf-8").replace("\\\n", " ").splitlines()


def versions_in(lock: str, here: Environment) -> dict[str, str]:
    """Return name → version of a lock's packages in an environment."""
    lines = [Requirement(line.partition(" --hash=")[0]) for line in lines_of(lock)]
    wanted = [line for line in lines if not line.marker or line.marker.evaluate(here)]
    return {canonicalize_name(line.name): str(line.specifier).removeprefix("==") for line in wanted}


def requirements_of(name: str, version: str) -> list[str]:
    """Return the requirements of an installed distribution."""
    installed = distribution(name)
    assert installed.version == version, (
        f"{name}: the lock has {version}, here is {installed.version}"
    )
    return installed.requires or []


@dataclass
class Walk:
    """A walk within a lock from the project's requirements to all they need."""

    versions: dict[str, str]
    environment: Environment

    def __post_init__(self) -> None:
        """Begin with nothing reached."""
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
            # Only another Python or platform needs it; none of these needs anything.
            assert name in ELSEWHERE, f"{name} is locked and not installed"
            return
        for text in needed:
            self.follow(text, f"{name} {version}", extra)


ELSEWHERE: Final = {"async-timeout", "colorama"}
"""Locked for older patch releases of Python 3.11, and for Windows."""


@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_is_complete_and_minimal(lock: str, python: str, platform: str) -> None:
    """An install that does not resolve would hide a missing package."""
    here = environment(python, platform)
    versions = versions_in(lock, here)
    walk = Walk(versions, here)
    for text in LOCKS[lock]:
        walk.follow(text, "pyproject.toml")

    assert walk.problems == []
    assert versions.keys() - walk.reached == set()


def test_a_missing_requirement_is_noticed() -> None:
    """By name and version, also of an extra."""
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


@pytest.mark.parametrize("lock", LOCKS)
def test_every_line_of_a_lock_is_exact_and_hashed(lock: str) -> None:
    """No line names an address: the machine knows where packages come from."""
    exact = re.compile(r"[\w.-]+==[\w.]+ (; [^#]+ )?\s*--hash=sha256:[0-9a-f]{64}")

    assert [line for line in lines_of(lock) if not exact.match(line)] == []
    assert "://" not in "".join(lines_of(lock))


def commands_of_pip() -> Iterator[tuple[str, str]]:
    """Yield each command that installs or builds, and its file."""
    for path in [*ROOT.glob("[A-Z]*"), *(ROOT / "deploy").rglob("*")]:
        if path.is_file() and path.suffix != ".json":
            text = path.read_text(encoding="utf-8").replace("\\\n", " ")
            for command in re.split(r"\n|&&|;", text):
                if re.search(r"\bpip3? .*\b(install|wheel)\b", command):
                    yield command.strip(), path.name


def test_no_install_resolves() -> None:
    """In every document and script: all that is fetched is locked and hashed."""
    found = list(commands_of_pip())

    assert {name for _, name in found} == {"Makefile", "Dockerfile"}
    assert [command for command, _ in found if "--no-deps" not in command] == []
    assert [
        command for command, _ in found if ".lock" in command and "--require-hashes" not in command
    ] == []
    assert "LOCKED := $(PIP) --require-hashes\n" in (ROOT / "Makefile").read_text(encoding="utf-8")
