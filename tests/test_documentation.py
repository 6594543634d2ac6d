"""What exists is documented, and what is documented exists."""

import re
from pathlib import Path

import pytest
from typer.main import get_command

from worker.cli.commands import app
from worker.errors import ExitCode
from worker.settings import FIELDS, SECRETS, Settings
from worker.settings.env_example import env_example
from worker.settings.masked import as_text
from worker.store.keys import Keys
from worker.store.pending_repairs import GapCause

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
MAP = (ROOT / "worker/README.md").read_text(encoding="utf-8")
KEYS = (ROOT / "worker/store/README.md").read_text(encoding="utf-8")


def test_every_setting_is_documented_with_its_default() -> None:
    """One row each, in order, and no other; the files of secrets, which are all alike, share the last."""
    rows = re.findall(r"^\| `((?:PUBNUB|REDIS|TALLY)_\w+)` \|(.*?)\|", README, re.MULTILINE)
    files = [f"{name}_FILE" for name in SECRETS]
    assert [name for name, _ in rows] == [name for name in FIELDS if name not in files]
    assert f"\n| {', '.join(f'`{name}`' for name in files)} | | " in README

    told = {name: default.strip().strip("`") for name, default in rows}
    for name, field in FIELDS.items():
        assert told.get(name, "") == (as_text(name, Settings.model_fields[field].default) or "")


def test_the_example_is_made_from_the_settings() -> None:
    """Nobody edits it: ``make env-example``."""
    assert (ROOT / "deploy/.env.example").read_text(encoding="utf-8") == env_example()


def test_every_command_is_documented() -> None:
    """One row each, and no other."""
    commands = set(get_command(app).commands)  # type: ignore[attr-defined]
    assert set(re.findall(r"^\| `tally (\w+)", README, re.MULTILINE)) == commands


def test_every_exit_code_is_documented() -> None:
    """By its number."""
    line = README[README.index("Exit codes:") :].split("\n\n")[0]
    assert set(map(int, re.findall(r"(?:: |· )(\d)", line))) == set(ExitCode)


def test_every_key_is_documented() -> None:
    """As the code spells it."""
    keys = Keys()
    spelled = {
        keys.counts("channel", "<message timetoken>"),
        keys.actions("channel", "<message timetoken>"),
        keys.removed("channel", "<message timetoken>"),
        keys.messages("channel"),
        keys.journal("channel"),
        keys.head("channel"),
        keys.owed("channel"),
        keys.progress("channel"),
        keys.channels,
        keys.cursor("<subscription>"),
        keys.subscriptions,
        keys.budget,
        keys.quarantine,
        keys.round,
        keys.meta,
    }
    assert set(re.findall(r"^\| `(tally:[^`]+)` \|", KEYS, re.MULTILINE)) == spelled


def test_every_gap_is_documented() -> None:
    """By its cause."""
    table = MAP[MAP.index("| cause |") :].split("\n\n")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == set(GapCause)


@pytest.mark.parametrize(
    "document", ["README.md", "worker/README.md", "worker/store/README.md", "tests/README.md"]
)
def test_every_file_named_in_a_document_exists(document: str) -> None:
    """Links, and paths of tests and modules."""
    text = (ROOT / document).read_text(encoding="utf-8")
    folder = (ROOT / document).parent
    for link in re.findall(r"\]\(([\w./-]+)\)", text):
        assert (folder / link).exists(), link
    for path in re.findall(r"`((?:tests|worker|deploy)/[\w./-]+)`", text):
        assert (ROOT / path).exists(), path
    if document == "worker/README.md":
        for module in re.findall(r"`(\w+\.py|\w+/)`", text[text.index("## The map") :]):
            assert (folder / module).exists(), module
