"""The bill of materials has what the lock installs, and the build says how an image has one."""

import json
import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Final

import pytest

from tests.deploy.dockerfile import ROOT
from tests.sbom import LOCK, OWN, sbom

LINES: Final = LOCK.read_text(encoding="utf-8").splitlines()


def test_every_locked_distribution_is_a_component() -> None:
    """With its version and every hash of the lock, and each once."""
    components = {each["purl"]: each for each in sbom()["components"]}
    locked = [line.split()[0].split(";")[0] for line in LINES if not line.startswith(" ")]
    digests = [line.rpartition(":")[2].strip(" \\") for line in LINES if "--hash" in line]

    assert len(components) == len(sbom()["components"]) == len(locked) + 1
    assert {f"pkg:pypi/{entry.replace('==', '@')}" for entry in locked} < set(components)
    listed = [hash["content"] for each in components.values() for hash in each.get("hashes", ())]
    assert sorted(listed) == sorted(digests)


def test_our_own_distributions_are_in_it() -> None:
    """The service is what it is about, the client a part of it."""
    document = sbom()
    names = [document["metadata"]["component"]["name"], document["components"][0]["name"]]
    assert tuple(names) == OWN
    assert document["metadata"]["component"]["version"] == version(OWN[0])


@pytest.mark.parametrize("component", sbom()["components"], ids=lambda each: each["name"])
def test_what_is_installed_here_is_as_it_says(component: dict[str, str]) -> None:
    """Only what is for other platforms or Pythons may be missing."""
    try:
        installed = version(component["name"])
    except PackageNotFoundError:
        assert component["scope"] == "optional"
    else:
        assert installed == component["version"]


def test_the_command_writes_the_same_twice() -> None:
    """JSON, without a time and without a name of this machine."""
    command = [sys.executable, "-m", "tests.sbom"]
    first, second = (subprocess.check_output(command, cwd=ROOT) for _ in range(2))
    assert first == second
    assert json.loads(first) == sbom()


def test_the_build_of_an_image_has_one() -> None:
    """The command at the top of the Dockerfile; an engine is needed to try it."""
    head = (ROOT / "Dockerfile").read_text(encoding="utf-8").partition("\nFROM ")[0]
    (command,) = re.findall(r"^#     (docker buildx build .*--sbom.*)$", head, re.MULTILINE)
    assert {"--sbom=true", "--provenance=mode=max", "--push"} <= set(command.split())
