"""Poll loops that only note the age of each event: through the SDK as it is shipped, or our client.

    python -m tests.benchmarks.bare < orders

A process of its own, as a worker is one. Each client of the SDK has fifty polls: its pool has room
for a hundred requests, and looks at all its connections for each.
"""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final

from pubnub.endpoints.pubsub.subscribe import Subscribe
from pubnub.pnconfiguration import PNConfiguration
from pubnub.pubnub_asyncio import PubNubAsyncio

from tests.benchmarks.probes import peak, stamp
from worker.domain.position import HANDSHAKE, Cursor
from worker.source.client import Client, Keyset

POLLS_EACH: Final = 50

Messages = Sequence[Any]
"""The messages of one answer."""


def configured(origin: str) -> Any:
    """Return the SDK's settings, its own but for where PubNub is."""
    config = PNConfiguration()
    config.subscribe_key, config.user_id, config.origin, config.ssl = "demo", "bench", origin, False
    config.disable_config_locking = False  # else a DeprecationWarning
    return config


@asynccontextmanager
async def sdk_client(origin: str) -> AsyncIterator[PubNubAsyncio]:
    """Yield a client of the SDK for asyncio."""
    pubnub = PubNubAsyncio(configured(origin), custom_event_loop=asyncio.get_running_loop())
    try:
        yield pubnub
    finally:
        await pubnub.close_session()
        pubnub._subscription_manager.stop()
        pubnub._subscription_manager.loop.close()  # the SDK opens one, and never closes it


def own_client(origin: str) -> Client:
    """Return the worker's own client."""
    return Client(Keyset("demo", "bench", origin=origin, tls=False))


async def sdk_polls(pubnub: Any, channels: Sequence[str], start: str) -> AsyncIterator[Messages]:
    """Yield answer after answer through the SDK."""
    cursor = {"t": start, "r": 1}
    while True:
        poll = Subscribe(pubnub).channels(list(channels)).timetoken(cursor["t"])
        result = (await poll.region(cursor["r"]).future()).result
        if result is None:  # the SDK swallows cancellation
            return
        cursor = result["t"]
        yield result["m"]


async def own_polls(
    client: Client, channels: Sequence[str], cursor: Cursor
) -> AsyncIterator[Messages]:
    """Yield answer after answer through our client: the rest of a worker's time is counting."""
    while True:
        answer = await client.subscribe(channels, [], cursor)
        cursor = answer.cursor
        yield answer.messages()


async def main(options: dict[str, Any]) -> None:
    """Follow until all events have come; print their ages in ticks, and the peak of memory."""
    ages: list[int] = []
    have_all_come = asyncio.Event()

    async def follow(polls: AsyncIterator[Messages]) -> None:
        async for messages in polls:
            now = stamp()
            ages.extend(now - int(message["p"]["t"]) for message in messages)
            if len(ages) >= options["events"]:
                have_all_come.set()

    async with AsyncExitStack() as stack:
        polls = await _polls(options, stack)
        following = [asyncio.create_task(follow(stream)) for stream in polls]
        await have_all_come.wait()
        sys.stdout.write(json.dumps({"ages": ages, "peak": peak()}))
        for task in following:
            task.cancel()
        await asyncio.wait(following, timeout=1)


async def _polls(options: dict[str, Any], stack: AsyncExitStack) -> list[AsyncIterator[Messages]]:
    origin, subscriptions = options["origin"], options["subscriptions"]
    if options["own"]:
        client = await stack.enter_async_context(own_client(origin))
        return [own_polls(client, channels, HANDSHAKE) for channels in subscriptions]
    polls: list[AsyncIterator[Messages]] = []
    for start in range(0, len(subscriptions), POLLS_EACH):
        pubnub = await stack.enter_async_context(sdk_client(origin))
        group = subscriptions[start : start + POLLS_EACH]
        polls += [sdk_polls(pubnub, channels, "0") for channels in group]
    return polls


if __name__ == "__main__":
    asyncio.run(main(json.load(sys.stdin)))
