"""An empty folder, an environment without settings, and settings that are refused."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from worker.errors import ConfigurationError
from worker.settings.checks import SHOW, Needs, load

CANARY = "canary"

Give = Callable[..., None]
"""Sets variables of the environment, as in ``give(TALLY_HTTP="off")``."""


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


def refused(needs: Needs = SHOW) -> list[str]:
    """Return the lines of the error, none of which shows the canary."""
    with pytest.raises(ConfigurationError) as error:
        load(needs)

    head, *lines = str(error.value).splitlines()
    assert head == "These settings are wrong:"
    assert CANARY not in str(error.value)
    return [line.strip() for line in lines]
