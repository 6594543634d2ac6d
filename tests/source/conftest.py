"""A scripted PubNub, a client of it, and time that passes at once."""

import logging
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import trustme

from tests.source.passing_time import Passes, passing_time
from tests.source.scripted import SUBSCRIBE_KEY, ScriptedPubNub
from worker.source.client import Client, Keyset


@pytest.fixture
async def server() -> AsyncIterator[ScriptedPubNub]:
    """Serve a script."""
    async with ScriptedPubNub() as server:
        yield server


@pytest.fixture
def keyset(server: ScriptedPubNub) -> Keyset:
    """Return the keyset of the script."""
    return Keyset(SUBSCRIBE_KEY, "tally", origin=server.origin, tls=False)


@pytest.fixture
async def client(keyset: Keyset) -> AsyncIterator[Client]:
    """Return a client of the script."""
    async with Client(keyset) as client:
        yield client


@pytest.fixture
async def passes(monkeypatch: pytest.MonkeyPatch) -> Passes:
    """Return a function that lets time pass."""
    return passing_time(monkeypatch)


@pytest.fixture
def open_loggers() -> Iterator[None]:
    """Open the loggers of the SDK, as an unlucky configuration would."""
    names = ("pubnub", "httpx", "httpcore", "hpack", "aiohttp")
    loggers = list(map(logging.getLogger, names))
    before = [(logger.level, logger.propagate, logger.handlers) for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.DEBUG)
        logger.propagate, logger.handlers = True, []
    yield
    for logger, (level, propagate, handlers) in zip(loggers, before, strict=True):
        logger.setLevel(level)
        logger.propagate, logger.handlers = propagate, handlers


@pytest.fixture
def authority(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> trustme.CA:
    """Return the only authority that this machine trusts."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "trusted.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "trusted.pem"))
    return authority
