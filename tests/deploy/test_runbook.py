"""The operator's documents name what exists; what they have somebody type runs where they say so.

Links and paths of all documents are held by ``tests/test_documentation.py``.
"""

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Final

import yaml
from typer.main import get_command

from tests.deploy.dockerfile import ROOT
from tests.deploy.needed import needs
from worker.cli.commands import app
from worker.settings import FIELDS

FOLDER: Final = ROOT / "deploy"
DOCUMENTS: Final = "\n".join(
    (FOLDER / name).read_text(encoding="utf-8")
    for name in ("install.md", "runbook.md", "reference.md")
)
CODE: Final = "\n".join(
    path.read_text(encoding="utf-8") for path in sorted((ROOT / "worker").rglob("*.py"))
)

OTHERS: Final = frozenset({"inhibit_rules", "runbook_url", "stop_grace_period"})
"""Words with an underscore that are somebody else's."""


def test_every_log_entry_and_every_cause_it_names_is_written() -> None:
    """So that a search of the log finds it."""
    words = {
        word
        for word in re.findall(r"`([a-z]+(?:_[a-z]+)+)`", DOCUMENTS)
        if not word.startswith("tally_")
    }
    assert "redis_went_back" in words
    assert {word for word in words - OTHERS if f'"{word}"' not in CODE} == set()


def test_every_command_and_option_it_names_exists() -> None:
    """As it is written there, it can be typed."""
    commands = get_command(app).commands  # type: ignore[attr-defined]
    named = re.findall(r"`tally ([a-z]+)([^`]*)`", DOCUMENTS)
    assert named
    for command, arguments in named:
        assert command in commands, command
        options = {option for each in commands[command].params for option in each.opts}
        assert set(re.findall(r"--[a-z-]+", arguments)) <= options, (command, arguments)


def test_every_setting_it_names_exists() -> None:
    """And none that was renamed."""
    assert set(re.findall(r"`((?:TALLY|PUBNUB)_[A-Z_]+)", DOCUMENTS)) <= set(FIELDS)


def test_every_alert_it_names_exists() -> None:
    """In Alertmanager's inhibitions above all: one that is misspelt silences nothing, and nobody notices."""
    alerts = set(
        re.findall(r"alert: (\w+)", (FOLDER / "prometheus/alerts.yml").read_text(encoding="utf-8"))
    )
    assert set(re.findall(r"\bTally[A-Z]\w+", DOCUMENTS)) <= alerts


# --- what is typed in an installation -----------------------------------------------------------


def test_compose_is_always_told_its_file_and_a_service_it_has() -> None:
    """From the project's folder, where everybody stands."""
    services = set(
        yaml.safe_load((FOLDER / "compose.yaml").read_text(encoding="utf-8"))["services"]
    )
    typed = re.findall(r"`docker compose ([^`]*)`", DOCUMENTS)
    assert typed
    for words in typed:
        assert words.startswith("-f deploy/compose.yaml "), words
        if "up --build" not in words:
            assert services & set(words.split()), words


def test_kubectl_is_told_what_the_manifests_have() -> None:
    """Workloads, containers, the secret, and labels that find every worker and no job."""
    manifests = [
        manifest
        for path in (FOLDER / "kubernetes").glob("*.yaml")
        for manifest in yaml.safe_load_all(path.read_text(encoding="utf-8"))
    ]
    there = {
        (each["kind"].lower(), each["metadata"]["name"]): each
        for each in manifests
        if "metadata" in each
    }
    named = re.findall(
        r"\b(deployment|cronjob)/([\w-]+)|get (secret|deployment) ([\w-]+)", DOCUMENTS
    )
    assert {(kind or got, name or gotten) for kind, name, got, gotten in named} <= there.keys()
    template = there["deployment", "tally"]["spec"]["template"]
    assert set(re.findall(r"--container=(\S+)", DOCUMENTS)) == {
        each["name"] for each in template["spec"]["containers"]
    }
    (selector,) = re.findall(r"get pods -o name -l (\S+)\)", DOCUMENTS)
    assert dict(pair.split("=") for pair in selector.split(",")) == template["metadata"]["labels"]


def test_nothing_is_typed_in_the_image_that_it_has_not() -> None:
    """What follows ``--`` or a service's name there is of the program's, of the shell's or of Redis's own image."""
    inside = re.findall(r"kubectl exec [^`\n]*? -- (\S+)|exec (?:worker|redis) (\S+)", DOCUMENTS)
    assert {word or other for word, other in inside} <= {"tally", "sh", "redis-cli"}


STAND_IN: Final = """#!/bin/sh
printf '%s\\n' "$@" > told
while [ $# -gt 0 ]; do case "$1" in
  -E) export "$2"; shift 2 ;;
  -p) shift 2 ;;
  --*) shift ;;
  *) break ;;
esac; done
export CREDENTIALS_DIRECTORY="$PWD/credentials"
exec "$@"
"""
"""In place of systemd-run: writes down what it was told, and runs the command with what systemd would give it."""


@needs("bash", "that what the runbook has pasted for systemd runs a command as the unit does")
def test_what_is_pasted_for_systemd_runs_a_command_as_the_unit_does(tmp_path: Path) -> None:
    """With its user, its settings and its secrets, and with arguments as they were typed."""
    (function,) = re.findall(r"^ {8}(tally\(\) \{.*?; \})$", DOCUMENTS, re.MULTILINE | re.DOTALL)
    for name, text in (
        ("systemd-run", STAND_IN),
        ("tally", '#!/bin/sh\nenv > given\nprintf "<%s>" "$@"\n'),
    ):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    (tmp_path / "credentials").mkdir()
    here = function.replace("/opt/tally/bin/tally", str(tmp_path / "tally")).replace(
        "/var/lib/tally", str(tmp_path)
    )
    ran = subprocess.run(
        [shutil.which("bash") or "", "-c", f"{here}\ntally explain 'a room' 1"],
        cwd=tmp_path,
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=True,
    )
    given = dict(line.split("=", 1) for line in (tmp_path / "given").read_text().splitlines())
    unit = (FOLDER / "systemd/tally.service").read_text(encoding="utf-8")

    assert ran.stdout == "<explain><a room><1>"
    for line in re.findall(r"^Environment=(.*)$", unit, re.MULTILINE):
        name, path = line.split("=")
        assert given[name] == path.replace("%d", str(tmp_path / "credentials"))
    told = (tmp_path / "told").read_text().splitlines()
    for setting in ("User", "Group", "StateDirectory", "EnvironmentFile", "LoadCredential"):
        assert set(re.findall(rf"^{setting}=.*$", unit, re.MULTILINE)) <= set(told)
