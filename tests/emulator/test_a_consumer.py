"""A correct consumer of the emulator ends with the true counts."""

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from random import Random
from typing import Any
from urllib.parse import quote

import aiohttp

from tests.emulator.clients import KEY, Http
from tests.waiting import wait_until
from worker.emulator import Emulator

CHANNELS = ("room", "raum.👍")
ASKED = "room,raum.*"


@dataclass
class Consumer:
    """The simplest correct tally.

    It keeps the newest addition and the newest removal of each identity.
    """

    added: dict[tuple[str, ...], int] = field(default_factory=dict)
    removed: dict[tuple[str, ...], int] = field(default_factory=dict)

    def apply(self, message: dict[str, Any]) -> None:
        """Apply one event. Order and repetition do not matter."""
        data = message["d"]["data"]
        identity = (
            message["c"],
            data["messageTimetoken"],
            data["type"],
            data["value"],
            message["i"],
        )
        kind = self.added if message["d"]["event"] == "added" else self.removed
        kind[identity] = max(kind.get(identity, 0), int(data["actionTimetoken"]))

    def counts(self) -> Counter[tuple[str, ...]]:
        """Count the users of each channel, message, type and value."""
        return Counter(
            of[:4] for of, timetoken in self.added.items() if timetoken > self.removed.get(of, 0)
        )

    async def follow(self, http: Http) -> None:
        """Poll until the connection is cut."""
        query = "tt=0"
        while True:
            got = await http.poll(ASKED, query)
            query = got.cursor
            for message in got.document["m"]:
                self.apply(message)


def flat(emulator: Emulator) -> Counter[tuple[str, ...]]:
    """Return the truth in the consumer's form."""
    return Counter(
        {
            (channel, message, type, value): count
            for channel, messages in emulator.truth().items()
            for message, types in messages.items()
            for type, values in types.items()
            for value, count in values.items()
        }
    )


async def react(http: Http, user: int, random: Random) -> None:
    """Let one user add and remove reactions over HTTP."""
    mine: list[str] = []
    for turn in range(20):
        if mine and random.random() < 0.4:
            path = mine.pop(random.randrange(len(mine)))
            assert (await http.ask("DELETE", f"{path}?uuid=u{user}")).status == 200
            continue
        channel = quote(random.choice(CHANNELS))
        message = random.randint(1, 3)
        path = f"/v1/message-actions/{KEY}/channel/{channel}/message/{message}"
        action = {"type": "reaction", "value": random.choice("👍🎉❤")}
        got = await http.ask("POST", f"{path}?uuid=u{user}", action)
        assert got.status in {200, 409}, turn
        if got.status == 200:
            mine.append(f"{path}/action/{got.document['data']['actionTimetoken']}")


FAULTS = {
    "duplicate": 0.3,
    "reorder": 0.3,
    "late": 0.2,
    "ahead": 0.2,
    "rewind": 0.1,
    "latency": 0.1,
}


async def test_a_correct_consumer_ends_with_the_truth() -> None:
    """Ten users react in two channels. The consumer follows one by wildcard."""
    consumer = Consumer()
    async with aiohttp.ClientSession() as session, Emulator(seed=3, faults=FAULTS) as emulator:
        http = Http(session, emulator.origin)
        following = asyncio.create_task(consumer.follow(http))
        await wait_until(lambda: emulator.waiting == 1)
        await asyncio.gather(*(react(http, user, Random(user)) for user in range(10)))
        await wait_until(lambda: consumer.counts() == flat(emulator))
        assert sum(flat(emulator).values()) > 0
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
