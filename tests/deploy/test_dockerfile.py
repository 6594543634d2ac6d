"""``Dockerfile``: what it copies exists, and what it runs is what the project has."""

import json
import os
import re
import shutil
import subprocess
from typing import Final

import pytest

from tests.deploy.dockerfile import ROOT, ignore_patterns, ignored, stages
from tests.deploy.invocations import arguments
from tests.deploy.needed import untried
from worker.settings import FIELDS, Settings

TEXT: Final = (ROOT / "Dockerfile").read_text(encoding="utf-8")
BUILD, IMAGE = stages(TEXT)
WHOLE: Final = "that the image builds, and counts exactly without a privilege"
BUILDERS: Final = r"\b(pip3? (install|wheel|download)|apt(-get)?|apk|gcc|make|curl|wget|git|uv)\b"


def test_copied_files_are_in_the_context() -> None:
    """A missing one would fail only where there is an engine."""
    copied = [word for instruction in BUILD.all("COPY") for word in instruction.words[:-1]]

    assert [
        name for name in copied if not (ROOT / name).exists() or ignored(name, ignore_patterns())
    ] == []
    assert [
        name
        for name in (
            "worker/__main__.py",
            "worker/store/lua/apply.lua",
            "client/reaction_tally/lua/page.lua",
        )
        if ignored(name, ignore_patterns())
    ] == []


@pytest.mark.parametrize(
    "name", [".env", ".git/config", "tests/conftest.py", "deploy/.env", "worker/__pycache__/x.pyc"]
)
def test_the_context_has_nothing_else(name: str) -> None:
    """No secret, no history, nothing compiled for another machine."""
    assert ignored(name, ignore_patterns())


def test_the_context_is_enough_for_a_wheel() -> None:
    """It has all that pyproject.toml names."""
    copied = {word for instruction in BUILD.all("COPY") for word in instruction.words[:-1]}
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")

    named = re.findall(r'^(?:readme|license-files) = \[?"(.+)"', project, re.MULTILINE)
    assert {"pyproject.toml", "client", "worker", *named} <= copied
    assert len(named) == 2


def test_packages_are_installed_by_hash() -> None:
    """Every pip that fetches requires hashes, and none resolves; the last one has no index."""
    commands = [
        part
        for instruction in BUILD.all("RUN")
        for part in re.split(r"\s*&&\s*", instruction.text)
        if "pip" in part.split()
    ]
    fetching = [command for command in commands if "-r " in command]

    assert len(fetching) == 2
    assert all("--require-hashes" in command for command in fetching)
    assert all("--no-deps" in command for command in commands)
    assert "--no-index" in commands[-1]


def test_the_last_stage_has_no_build_tools() -> None:
    """It copies one folder from the first stage, and removes pip."""
    runs = " ".join(instruction.text for instruction in IMAGE.all("RUN"))

    assert re.findall(BUILDERS, runs) == []
    assert "pip uninstall" in runs
    assert "ensurepip" in runs
    assert [instruction.text for instruction in IMAGE.all("COPY")] == [
        "--from=build /opt/tally /opt/tally"
    ]


def test_the_user_is_a_number() -> None:
    """Kubernetes cannot prove that a name is not root."""
    user, _, group = IMAGE.last("USER").text.partition(":")

    assert (int(user), int(group)) == (10001, 10001)
    assert len(IMAGE.all("USER")) == 1


def test_commands_are_the_programs_own() -> None:
    """The health check has `--live`: without it an outage of Redis would kill the worker."""
    health = json.loads(IMAGE.last("HEALTHCHECK").text.partition("CMD ")[2])

    assert IMAGE.last("ENTRYPOINT").words == health[:1] == ["tally"]
    assert arguments(IMAGE.last("CMD").words) == ("run", {"allow_eviction": False})
    assert arguments(health[1:]) == ("healthcheck", {"live": True})


def test_the_exposed_port_is_the_workers() -> None:
    """On every address, because loopback is private to a container."""
    given = {
        name: text
        for instruction in IMAGE.all("ENV")
        for name, text in instruction.pairs.items()
        if name.startswith("TALLY_")
    }

    assert given.keys() <= FIELDS.keys()
    http = Settings.model_validate(given).http
    assert http is not None
    assert (http.host, str(http.port)) == ("0.0.0.0", IMAGE.last("EXPOSE").text)  # noqa: S104


def test_labels_are_complete() -> None:
    """Title, description, license, and the version and revision of the build."""
    labels = {
        name.removeprefix("org.opencontainers.image."): text
        for name, text in IMAGE.last("LABEL").pairs.items()
    }

    assert {name for name, text in labels.items() if text} == {
        "title",
        "description",
        "licenses",
        "version",
        "revision",
    }
    build_arguments = {name for instruction in IMAGE.all("ARG") for name in instruction.pairs}
    assert {labels["version"], labels["revision"]} == {f"${{{name}}}" for name in build_arguments}


def test_the_stop_signal_drains() -> None:
    """By the signal that drains."""
    assert IMAGE.last("STOPSIGNAL").text == "SIGTERM"


def test_the_base_image_has_an_exact_version() -> None:
    """Otherwise two builds of one commit would be two images."""
    (tag,) = re.findall(r"^ARG PYTHON=(\S+)$", TEXT, re.MULTILINE)

    assert re.fullmatch(r"3\.13\.\d+-slim-[a-z]+", tag)
    assert {BUILD.source, IMAGE.source} == {"python:${PYTHON}"}


@pytest.mark.skipif(
    "TALLY_BUILD_IMAGE" not in os.environ, reason=untried("TALLY_BUILD_IMAGE", WHOLE)
)
@pytest.mark.timeout(1800)
def test_the_image_counts_exactly() -> None:
    """Built and run by an engine: as nobody, nothing writable but /tmp."""
    docker = shutil.which("docker") or ""
    image = subprocess.check_output([docker, "build", "--quiet", ROOT], text=True).strip()
    confined = ["--rm", "--read-only", "--tmpfs=/tmp", "--cap-drop=ALL"]

    user = subprocess.check_output([docker, "run", *confined, "--entrypoint=id", image, "-u"])
    demo = subprocess.check_output([docker, "run", *confined, image, "demo", "--seconds=5"])

    assert user == b"10001\n"
    assert b"0 differences" in demo
