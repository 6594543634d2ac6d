"""What a team needs to test its own code: a fake with given counts, and the whole service.

``pubnub_emulator`` is the PubNub of that service alone.

>>> with fake_tallies({("room", "17600000001728660"): {"reaction": {"👍": ["ana"]}}}) as tallies:
...     tallies.reader.get("room", "17600000001728660")
{'reaction': {'👍': 1}}

>>> with tally_service() as service:
...     service.react("room", "17600000001728660", "👍", "ana")
...     service.settle()
...     service.reader.get("room", "17600000001728660")
{'reaction': {'👍': 1}}
"""

from reaction_tally.testing.emulator import PubNubEmulator, pubnub_emulator
from reaction_tally.testing.errors import (
    NotInstalledError,
    ReactionRefusedError,
    ServiceFailedError,
)
from reaction_tally.testing.fake import FakeTallies, GivenTallies, fake_tallies
from reaction_tally.testing.service import TallyService, tally_service

__all__ = [
    "FakeTallies",
    "GivenTallies",
    "NotInstalledError",
    "PubNubEmulator",
    "ReactionRefusedError",
    "ServiceFailedError",
    "TallyService",
    "fake_tallies",
    "pubnub_emulator",
    "tally_service",
]
