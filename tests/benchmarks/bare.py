"""Poll loops through the SDK as it is shipped that do nothing but note when what they hear of was published.

    python -m tests.benchmarks.bare < orders

A process of its own, as a worker is one. Its pool alone is not as shipped: that has room for a hundred polls only.
"""

import asyncio
import json
import sys
from contextlib import closing
from typing import Any

import httpx
from pubnub.endpoints.pubsub.subscribe import Subscribe
from pubnub.pnconfiguration import PNConfiguration
from pubnub.pubnub_asyncio import PubNubAsyncio
from pubnub.request_handlers.async_httpx import PubNubAsyncHTTPTransport

from tests.benchmarks.children import peak
from tests.benchmarks.loopback import stamp


def configured(origin: str) -> Any:
    """Return the SDK's settings, its own but for where PubNub is."""
    config = PNConfiguration()
    config.subscribe_key, config.user_id, config.origin, config.ssl = "demo", "bench", origin, False
    config.disable_config_locking = False  # else a DeprecationWarning
    return config


async def main(orders: dict[str, Any]) -> None:
    """Follow so many subscriptions until all events are heard of; say how old each was, in ticks, and the memory."""
    pubnub = PubNubAsyncio(configured(orders["origin"]), custom_event_loop=asyncio.get_running_loop())
    room = httpx.Limits(max_connections=1000)
    pubnub._request_handler._connector = PubNubAsyncHTTPTransport(http2=True, limits=room)
    ages: list[int] = []
    heard_all = asyncio.Event()

    async def follow(channels: list[str]) -> None:
        place = {"t": "0", "r": 1}
        while not heard_all.is_set():
            poll = Subscribe(pubnub).channels(channels).timetoken(place["t"]).region(place["r"])
            answer, now = (await poll.future()).result, stamp()
            if answer is None:  # the SDK swallows cancellation
                return
            place = answer["t"]
            ages.extend(now - int(message["p"]["t"]) for message in answer["m"])
            if len(ages) >= orders["events"]:
                heard_all.set()

    following = [asyncio.create_task(follow(channels)) for channels in orders["subscriptions"]]
    await heard_all.wait()
    sys.stdout.write(json.dumps({"ages": ages, "peak": peak()}))
    for task in following:
        task.cancel()
    await pubnub.close_session()
    pubnub._subscription_manager.stop()
    with closing(pubnub._subscription_manager.loop):  # the SDK opens one, and never closes it
        pass


if __name__ == "__main__":
    asyncio.run(main(json.load(sys.stdin)))
