"""Fixtures for pytest, in a ``conftest.py`` at the top of the tests.

>>> pytest_plugins = ["reaction_tally.testing.fixtures"]

No entry point registers them: it would load redis in every run of pytest.
"""

from collections.abc import Iterator, Sequence

import pytest

from reaction_tally.testing import emulator, fake, service


@pytest.fixture
def fake_tallies() -> Iterator[fake.FakeTallies]:
    """Tallies in memory, which are empty in the beginning."""
    with fake.fake_tallies() as tallies:
        yield tallies


@pytest.fixture
def pubnub_emulator() -> Iterator[emulator.PubNubEmulator]:
    """An emulator of PubNub, new for each test."""
    with emulator.pubnub_emulator() as running:
        yield running


@pytest.fixture
def tally_channels() -> Sequence[str]:
    """The channels of ``tally_service``; override it."""
    return service.CHANNELS


@pytest.fixture
def tally_service(tally_channels: Sequence[str]) -> Iterator[service.TallyService]:
    """Emulator, Valkey and worker, new for each test."""
    with service.tally_service(tally_channels) as running:
        yield running
