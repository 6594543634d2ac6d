"""An empty folder, and an environment without settings."""

import os
from pathlib import Path

import pytest

from tests.settings.given import Give


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Change into an empty folder, and unset every setting."""
    for name in os.environ:
        if name.upper().startswith(("PUBNUB_", "TALLY_", "REDIS_")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def give(monkeypatch: pytest.MonkeyPatch) -> Give:
    """Return a function that sets variables of the environment."""

    def set_all(**settings: str) -> None:
        for name, text in settings.items():
            monkeypatch.setenv(name, text)

    return set_all


@pytest.fixture
def dotenv(tmp_path: Path) -> Path:
    """Return the path of ``.env``."""
    return tmp_path / ".env"
