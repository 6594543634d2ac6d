"""An emulator that listens, and a bare HTTP client of it; another one, whose polls wait for an event."""

from collections.abc import AsyncIterator, Iterator

import aiohttp
import pytest
import trustme

from tests.emulator.clients import Http
from worker.emulator import Emulator


@pytest.fixture(autouse=True, scope="package")
def one_authority_and_no_proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Let the SDK trust one authority, and ask loopback itself, whatever proxy this machine has.

    Each SDK reads all authorities when it is made, which takes longer than most of these tests.
    """
    known = tmp_path_factory.mktemp("authority") / "known.pem"
    trustme.CA().cert_pem.write_to_path(known)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_CERT_FILE", str(known))
        for name in ("NO_PROXY", "no_proxy"):
            patch.setenv(name, "127.0.0.1")
        yield


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


@pytest.fixture
async def patient() -> AsyncIterator[Emulator]:
    """Listen on a free port, without faults; an idle poll outlasts the test."""
    async with Emulator(seed=1, idle_seconds=3600) as emulator:
        yield emulator


@pytest.fixture
async def patient_http(patient: Emulator) -> AsyncIterator[Http]:
    """Talk to that emulator without the SDK."""
    async with aiohttp.ClientSession() as session:
        yield Http(session, patient.origin)
