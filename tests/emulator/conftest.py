"""An emulator that listens, and a bare HTTP client of it."""

from collections.abc import AsyncIterator

import aiohttp
import pytest

from tests.emulator.clients import Http
from worker.emulator import Emulator


@pytest.fixture
async def emulator() -> AsyncIterator[Emulator]:
    """Listen on a free port, without faults; an idle poll ends after a twentieth of a second."""
    async with Emulator(seed=1, idle_seconds=0.05) as emulator:
        yield emulator


@pytest.fixture
async def http(emulator: Emulator) -> AsyncIterator[Http]:
    """Talk to that emulator without the SDK."""
    async with aiohttp.ClientSession() as session:
        yield Http(session, emulator.origin)
