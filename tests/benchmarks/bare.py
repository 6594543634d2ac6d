"""Poll loops that do nothing but note when what they hear of was published: through the SDK as it is shipped, or ours.

    python -m tests.benchmarks.bare < orders

A process of its own, as a worker is one. Each client has fifty polls: the SDK's pool has room for a hundred requests,
and looks at all its connections for each.
"""

import asyncio
import json
import sys
from typing import Any, Final, cast

from pubnub.endpoints.pubsub.subscribe import Subscribe
from pubnub.pnconfiguration import PNConfiguration
from pubnub.pubnub_asyncio import PubNubAsyncio

from tests.benchmarks.probes import peak, stamp
from worker.domain.position import HANDSHAKE
from worker.source.client import Client, Keyset

POLLS_EACH: Final = 50


def configured(origin: str) -> Any:
    """Return the SDK's settings, its own but for where PubNub is."""
    config = PNConfiguration()
    config.subscribe_key, config.user_id, config.origin, config.ssl = "demo", "bench", origin, False
    config.disable_config_locking = False  # else a DeprecationWarning
    return config


async def main(options: dict[str, Any]) -> None:
    """Follow so many subscriptions until all events are heard of; say how old each was, in ticks, and the memory."""
    if options["own"]:
        await polling(options)
        return
    subscriptions: list[list[str]] = options["subscriptions"]
    loop = asyncio.get_running_loop()
    clients = [
        PubNubAsyncio(configured(options["origin"]), custom_event_loop=loop)
        for _ in range(0, len(subscriptions), POLLS_EACH)
    ]
    ages: list[int] = []
    heard_all = asyncio.Event()

    async def follow(pubnub: Any, channels: list[str]) -> None:
        place = {"t": "0", "r": 1}
        while not heard_all.is_set():
            poll = Subscribe(pubnub).channels(channels).timetoken(place["t"]).region(place["r"])
            answer, now = (await poll.future()).result, stamp()
            if answer is None:  # the SDK swallows cancellation
                return
            place = answer["t"]
            ages.extend(now - int(message["p"]["t"]) for message in answer["m"])
            if len(ages) >= options["events"]:
                heard_all.set()

    following = [
        asyncio.create_task(follow(clients[number // POLLS_EACH], channels))
        for number, channels in enumerate(subscriptions)
    ]
    await heard_all.wait()
    sys.stdout.write(json.dumps({"ages": ages, "peak": peak()}))
    for task in following:
        task.cancel()
    for pubnub in clients:
        await pubnub.close_session()
        pubnub._subscription_manager.stop()
        pubnub._subscription_manager.loop.close()  # the SDK opens one, and never closes it


async def polling(options: dict[str, Any]) -> None:
    """Do the same through the worker's own client: what is left to a worker beside it is what counting costs."""
    ages: list[int] = []
    heard_all = asyncio.Event()
    async with Client(Keyset("demo", "bench", origin=options["origin"], tls=False)) as client:

        async def follow(channels: list[str]) -> None:
            cursor = HANDSHAKE
            while True:
                answer = await client.subscribe(channels, [], cursor)
                cursor, now = answer.cursor, stamp()
                ages.extend(
                    now - int(message["p"]["t"]) for message in cast("Any", answer.messages)
                )
                if len(ages) >= options["events"]:
                    heard_all.set()

        following = [asyncio.create_task(follow(channels)) for channels in options["subscriptions"]]
        await heard_all.wait()
        sys.stdout.write(json.dumps({"ages": ages, "peak": peak()}))
        for task in following:
            task.cancel()
        await asyncio.gather(*following, return_exceptions=True)


if __name__ == "__main__":
    asyncio.run(main(json.load(sys.stdin)))
