"""An emulator with short polls, one with long polls, and plain HTTP for both."""

from collections.abc import AsyncIterator, Iterator

import aiohttp
import pytest

from tests.emulator.clients import Http
from tests.source.scripted import one_authority
from worker.emulator import Emulator


@pytest.fixture(autouse=True, scope="package")
def one_authority_and_no_proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Let the SDK trust one authority, and use no proxy."""
    with one_authority(tmp_path_factory) as patch:
        patch.setenv("NO_PROXY", "127.0.0.1")
        patch.setenv("no_proxy", "127.0.0.1")
        yield


@pytest.fixture
async def emulator() -> AsyncIterator[Emulator]:
    """Listen without faults. An idle poll ends after 0.05 s."""
    async with Emulator(seed=1, idle_seconds=0.05) as emulator:
        yield emulator


@pytest.fixture
async def http(emulator: Emulator) -> AsyncIterator[Http]:
    """Send plain HTTP to that emulator."""
    async with aiohttp.ClientSession() as session:
        yield Http(session, emulator.origin)


@pytest.fixture
async def patient() -> AsyncIterator[Emulator]:
    """Listen without faults. An idle poll outlasts the test."""
    async with Emulator(seed=1, idle_seconds=3600) as emulator:
        yield emulator


@pytest.fixture
async def patient_http(patient: Emulator) -> AsyncIterator[Http]:
    """Send plain HTTP to that emulator."""
    async with aiohttp.ClientSession() as session:
        yield Http(session, patient.origin)
