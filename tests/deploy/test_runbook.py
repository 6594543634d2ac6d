"""The runbook names what exists: commands, settings, log entries, files."""

import re
from typing import Final

from typer.main import get_command

from tests.deploy.dockerfile import ROOT
from worker.cli import app
from worker.settings import FIELDS

FOLDER: Final = ROOT / "deploy"
RUNBOOK: Final = (FOLDER / "README.md").read_text(encoding="utf-8")
CODE: Final = "\n".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "worker").rglob("*.py")))

OTHERS: Final = frozenset({"runbook_url", "stop_grace_period"})
"""Words with an underscore that are somebody else's."""


def test_every_log_entry_and_every_cause_it_names_is_written() -> None:
    """Whoever searches the log for it finds it."""
    words = {word for word in re.findall(r"`([a-z]+(?:_[a-z]+)+)`", RUNBOOK) if not word.startswith("tally_")}
    assert "redis_went_back" in words
    assert {word for word in words - OTHERS if f'"{word}"' not in CODE} == set()


def test_every_command_and_option_it_names_exists() -> None:
    """As it is written there, it can be typed."""
    commands = get_command(app).commands  # type: ignore[attr-defined]
    named = re.findall(r"`tally ([a-z]+)([^`]*)`", RUNBOOK)
    assert named
    for command, arguments in named:
        assert command in commands, command
        options = {option for each in commands[command].params for option in each.opts}
        assert set(re.findall(r"--[a-z-]+", arguments)) <= options, (command, arguments)


def test_every_setting_it_names_exists() -> None:
    """And none that was renamed."""
    assert set(re.findall(r"`((?:TALLY|PUBNUB)_[A-Z_]+)", RUNBOOK)) <= set(FIELDS)


def test_every_alert_it_names_exists() -> None:
    """In Alertmanager's inhibitions above all: one that is misspelt silences nothing, and nobody notices."""
    alerts = set(re.findall(r"alert: (\w+)", (FOLDER / "prometheus/alerts.yml").read_text(encoding="utf-8")))
    assert set(re.findall(r"\bTally[A-Z]\w+", RUNBOOK)) <= alerts


def test_every_link_leads_somewhere() -> None:
    """To a file, a folder, or a heading of its own."""
    headings = {
        re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-")
        for heading in re.findall(r"^#+ (.*)$", RUNBOOK, re.MULTILINE)
    }
    for target in re.findall(r"\]\(([^)]+)\)", RUNBOOK):
        path, _, anchor = target.partition("#")
        assert (FOLDER / path).exists(), target
        assert path or anchor in headings, target
    for path in re.findall(r"`((?:prometheus|grafana|kubernetes|systemd)/[\w./-]+)`", RUNBOOK):
        assert (FOLDER / path).exists(), path
