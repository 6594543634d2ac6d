"""An empty folder and an environment without settings."""

import os
from pathlib import Path
from typing import Protocol

import pytest


class Give(Protocol):
    """Sets variables of the environment, as in ``give(TALLY_HTTP="off")``."""

    def __call__(self, **settings: str) -> None:
        """Set them."""


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
