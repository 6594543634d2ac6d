"""The operator's documents name what exists. A command they show runs where they say.

``tests/test_documentation.py`` checks links, paths, commands and settings of all documents.
"""

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Final

import pytest
import yaml

from tests.deploy.dockerfile import ROOT
from tests.deploy.needed import needs

FOLDER: Final = ROOT / "deploy"


def text_of(path: str) -> str:
    """Return the text of a file in ``deploy/``."""
    return (FOLDER / path).read_text(encoding="utf-8")


DOCUMENTS: Final = "\n".join(map(text_of, ("install.md", "runbook.md", "reference.md")))
MODULES: Final = sorted(
    path
    for package in ("worker", "client/reaction_tally")
    for path in (ROOT / package).rglob("*.py")
)
CODE: Final = "\n".join(path.read_text(encoding="utf-8") for path in MODULES)

FOREIGN: Final = {
    *("inhibit_rules", "runbook_url", "stop_grace_period"),
    *("sentinel_username", "sentinel_password"),
}
"""Words with an underscore of Alertmanager, Prometheus and compose; options of an address."""


def test_every_log_event_and_cause_is_written_by_the_code() -> None:
    """So that a search of the log finds it."""
    words = set(re.findall(r"`([a-z]+(?:_[a-z]+)+)`", DOCUMENTS)) - FOREIGN
    own = {word for word in words if not word.startswith("tally_")}
    assert "redis_went_back" in own
    assert {word for word in own if f'"{word}"' not in CODE} == set()


def test_every_alert_exists() -> None:
    """A misspelt one in Alertmanager's inhibitions silences nothing, and nobody notices."""
    alerts = re.findall(r"alert: (\w+)", text_of("prometheus/alerts.yml"))
    assert set(re.findall(r"\bTally[A-Z]\w+", DOCUMENTS)) <= set(alerts)


# --- what is typed in an installation -----------------------------------------------------------


def test_compose_gets_its_file_and_a_service() -> None:
    """From the project's folder."""
    services = set(yaml.safe_load(text_of("compose.yaml"))["services"])
    typed = re.findall(r"(?:`|^ {4})docker compose ([^`\n]*)", DOCUMENTS, re.MULTILINE)
    assert typed
    for words in typed:
        assert words.startswith("-f deploy/compose.yaml "), words
        if not words.endswith(("up --build", "down")):
            assert services & set(words.split()), words


def test_kubectl_names_what_the_manifests_have() -> None:
    """Workloads, containers, the secret, and labels of every worker and no job."""
    manifests = {
        (manifest["kind"].lower(), manifest["metadata"]["name"]): manifest
        for path in FOLDER.glob("kubernetes*/**/*.yaml")
        for manifest in yaml.safe_load_all(path.read_text(encoding="utf-8"))
        if "metadata" in manifest
    }
    named = re.findall(r"\b(deployment|statefulset|cronjob)/([\w-]+)", DOCUMENTS)
    named += re.findall(r"get (secret|deployment|statefulset) ([\w-]+)", DOCUMENTS)
    assert set(named) <= manifests.keys()

    template = manifests["deployment", "tally"]["spec"]["template"]
    containers = {container["name"] for container in template["spec"]["containers"]}
    assert set(re.findall(r"--container=(\S+)", DOCUMENTS)) == containers

    (selector,) = re.findall(r"get pods -o name -l (\S+)\)", DOCUMENTS)
    assert dict(pair.split("=") for pair in selector.split(",")) == template["metadata"]["labels"]


def test_a_command_in_an_image_is_one_the_image_has() -> None:
    """After ``--`` or a service's name: the program, the shell, or what Redis's own image has."""
    in_pods = re.findall(r"kubectl exec [^`\n]*? -- (\S+)", DOCUMENTS)
    in_services = re.findall(r"exec (?:worker|redis) (\S+)", DOCUMENTS)
    assert {*in_pods, *in_services} <= {"tally", "sh", "redis-cli"}


SYSTEMD_RUN: Final = """#!/bin/sh
printf '%s\\n' "$@" > arguments
while [ $# -gt 0 ]; do case "$1" in
  -E) export "$2"; shift 2 ;;
  -p) shift 2 ;;
  --*) shift ;;
  *) break ;;
esac; done
export CREDENTIALS_DIRECTORY="$PWD/credentials"
exec "$@"
"""
"""A stand-in for systemd-run: writes its arguments down, and runs the command as systemd would."""

TALLY: Final = """#!/bin/sh
env > environment
printf "<%s>" "$@"
"""
"""A stand-in for ``tally``: writes its environment down, and prints its arguments."""

SHARED: Final = ("User", "Group", "StateDirectory", "EnvironmentFile", "LoadCredential")
"""What the unit and the pasted function set alike."""


@needs(
    "bash", "that the function the runbook has pasted for systemd runs a command as the unit does"
)
def test_the_pasted_function_runs_a_command_as_the_unit_does(tmp_path: Path) -> None:
    """With the unit's user, settings and secrets, and with the arguments as they were typed."""
    (function,) = re.findall(r"^ {8}(tally\(\) \{.*?; \})$", DOCUMENTS, re.MULTILINE | re.DOTALL)
    function = function.replace("/opt/tally/bin/tally", str(tmp_path / "tally"))
    function = function.replace("/var/lib/tally", str(tmp_path))
    (tmp_path / "credentials").mkdir()
    for name, script in (("systemd-run", SYSTEMD_RUN), ("tally", TALLY)):
        (tmp_path / name).write_text(script)
        (tmp_path / name).chmod(0o755)

    ran = subprocess.run(
        [shutil.which("bash") or "", "-c", f"{function}\ntally explain 'a room' 1"],
        cwd=tmp_path,
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=True,
    )
    environment = (tmp_path / "environment").read_text().splitlines()
    arguments = (tmp_path / "arguments").read_text().splitlines()
    unit = text_of("systemd/tally.service")

    assert ran.stdout == "<explain><a room><1>"
    for line in re.findall(r"^Environment=(.*)$", unit, re.MULTILINE):
        assert line.replace("%d", str(tmp_path / "credentials")) in environment
    for setting in SHARED:
        assert set(re.findall(rf"^{setting}=.*$", unit, re.MULTILINE)) <= set(arguments)


CRON_STUBS: Final = {
    "tally": """#!/bin/sh
echo "$*" >> asked
echo "what $1 says"
exit "$CODE"
""",
    "sleep": """#!/bin/sh
echo "sleep $1" >> asked
""",
}
"""Stand-ins: for ``tally``, which ends with a code, and for the pause before it is asked again."""


@pytest.mark.parametrize(
    ("code", "asked", "mail"),
    [
        (0, "healthcheck\nverify\n", ""),
        (1, "healthcheck\nsleep 180\nhealthcheck\nverify\n", "exit code 1"),
        (5, "healthcheck\nsleep 180\nhealthcheck\nverify\n", "exit code 5"),
    ],
)
def test_a_line_of_cron_prints_only_what_is_wrong(
    code: int, asked: str, mail: str, tmp_path: Path
) -> None:
    """Cron sends a mail of what is printed; a worker that restarts is no reason for one."""
    lines = re.findall(r"^ {4}[*/0-9 ]+ {2,}(out=.*)$", DOCUMENTS, re.MULTILINE)
    for name, script in CRON_STUBS.items():
        (tmp_path / name).write_text(script)
        (tmp_path / name).chmod(0o755)

    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "CODE": str(code)}
    printed = [
        subprocess.run(
            ["/bin/sh", "-c", line],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for line in lines
    ]

    said = ["what healthcheck says\n", f"{mail}: what verify says\n"]
    assert printed == (said if mail else ["", ""])
    assert (tmp_path / "asked").read_text() == asked
