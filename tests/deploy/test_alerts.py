"""Alerts name what exists, fire when they should, and each tells a person what to do."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from tests.deploy.dockerfile import ROOT
from tests.deploy.needed import needs
from tests.deploy.promql import documented_name, kind, labels, ours, wrong

FOLDER: Final = ROOT / "deploy/prometheus"
TESTS: Final = ("alerts_test.yml", "alerts_long_test.yml")
RUNBOOK: Final = (ROOT / "deploy/runbook.md").read_text(encoding="utf-8")
REFERENCE: Final = (ROOT / "deploy/reference.md").read_text(encoding="utf-8")
GROUPS: Final[list[dict[str, Any]]] = yaml.safe_load(
    (FOLDER / "alerts.yml").read_text(encoding="utf-8")
)["groups"]
RULES: Final[list[dict[str, Any]]] = [rule for group in GROUPS for rule in group["rules"]]


def promtool(*arguments: str, folder: Path = FOLDER) -> None:
    """Expect promtool to accept the arguments."""
    command = [shutil.which("promtool") or "", *arguments]
    ran = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=100, check=False
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr


@needs("promtool", "that Prometheus takes the alerts")
def test_promtool_accepts_the_rules() -> None:
    """As Prometheus will."""
    promtool("check", "rules", "--lint-fatal", "alerts.yml")


@needs("promtool", "that each alert fires, clears and stays silent when it should")
@pytest.mark.parametrize("tests", TESTS)
def test_every_alert_fires_and_clears(tests: str, tmp_path: Path) -> None:
    """Histories and expectations are in the files; each history is tried on the alerts it names.

    All alerts on all histories would take half a minute.
    """
    document = yaml.safe_load((FOLDER / tests).read_text(encoding="utf-8"))
    assert document["rule_files"] == ["alerts.yml"]
    alone = [f"{number}_{tests}" for number, _ in enumerate(document["tests"])]
    for name, history in zip(alone, document["tests"], strict=True):
        asked = {expected["alertname"] for expected in history["alert_rule_test"]}
        groups = [
            {**group, "rules": [rule for rule in group["rules"] if rule["alert"] in asked]}
            for group in GROUPS
        ]
        # JSON is YAML.
        (tmp_path / f"rules_{name}").write_text(json.dumps({"groups": groups}), encoding="utf-8")
        one = {**document, "rule_files": [f"rules_{name}"], "tests": [history]}
        (tmp_path / name).write_text(json.dumps(one), encoding="utf-8")
    promtool("test", "rules", *alone, folder=tmp_path)


def test_every_alert_has_a_history() -> None:
    """Each alert fires once at least, stays silent once at least; no test names another alert."""
    fires: set[str] = set()
    spares: set[str] = set()
    for tests in TESTS:
        for history in yaml.safe_load((FOLDER / tests).read_text(encoding="utf-8"))["tests"]:
            for expected in history["alert_rule_test"]:
                (fires if expected["exp_alerts"] else spares).add(expected["alertname"])
    assert fires == spares == {rule["alert"] for rule in RULES}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_names_only_what_exists(rule: dict[str, Any]) -> None:
    """Metrics, labels and values: an alert on a missing metric never fires."""
    assert wrong(rule["expr"]) == []


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_says_what_to_do(rule: dict[str, Any]) -> None:
    """Severity, summary, description, and the section of its name."""
    assert rule["labels"]["severity"] in {"page", "ticket"}
    assert set(rule["annotations"]) == {"summary", "description", "runbook_url"}
    assert rule["annotations"]["runbook_url"] == f"deploy/runbook.md#{rule['alert'].lower()}"


def test_every_alert_has_its_section() -> None:
    """No other section exists; each has its steps as a list, in the order of the rules."""
    part = RUNBOOK[RUNBOOK.index("\n## Alerts\n") :].split("\n## ")[1]
    sections = {section.split("\n", 1)[0]: section for section in part.split("\n### ")[1:]}
    assert list(sections) == [rule["alert"] for rule in RULES]
    for rule in RULES:
        section = sections[rule["alert"]]
        assert f"**{rule['labels']['severity'].capitalize()}.**" in section, section
        assert "\n1. " in section, section


def test_every_metric_has_its_row() -> None:
    """With type and labels; no row names a metric that does not exist."""
    rows = re.findall(r"^\| `(tally_\w+)` \| (\w+) \|([^|]*)\|", REFERENCE, re.MULTILINE)
    documented = {name: (type, tuple(re.findall(r"`(\w+)`", named))) for name, type, named in rows}
    assert documented == {
        documented_name(metric): (kind(metric), labels(metric)) for metric in ours()
    }
    assert len(rows) == len(documented)


@pytest.mark.parametrize(
    ("query", "what"),
    [
        ("tally_evnets_total", "no metric tally_evnets_total"),
        ('tally_gaps_total{cuase="overflow"}', "tally_gaps_total has no label cuase"),
        ('tally_gaps_total{cause="overflows"}', "tally_gaps_total: cause is never overflows"),
        ("sum by (origni) (tally_events_total)", "nothing has a label origni"),
    ],
)
def test_a_missing_metric_is_noticed(query: str, what: str) -> None:
    """Proof that the tests above can fail."""
    assert wrong(query) == [what]
