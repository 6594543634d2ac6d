"""Events a second, measured: through the store alone, and from PubNub's answer to Redis.

    .venv/bin/python -m tests.benchmarks.throughput

A first measurement, not a target: median and spread of several runs, each compared with the truth at its end.
"""

import argparse
import asyncio
import json
import multiprocessing
import random
import statistics
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from multiprocessing.connection import Connection

from aiohttp import web

from tests.redis_server import RedisServer
from worker.apply import Applier
from worker.domain.action import Added, Identity, Observed, Origin, Removed
from worker.domain.position import Cursor
from worker.gaps import Gaps
from worker.ingest import Subscription, Terms
from worker.source.client import Client, Keyset
from worker.source.live import Poller
from worker.source.names import Names
from worker.source.pace import Backoff, elapsed_clock
from worker.source.wire import Interest
from worker.store.connection import connect
from worker.store.keys import Keys
from worker.store.marks import Marks
from worker.store.reader import TallyReader
from worker.store.store import Store
from worker.telemetry.logs import LogFormat, configure

ANSWER = 99  # a hundred would be a gap
CHANNELS = 20
MESSAGES = 5_000
FIRST = 17_600_000_000_000_000


def history(count: int, seed: int = 1) -> list[Observed]:
    """Return events on many messages, 15 % of them removals, a few of them twice."""
    chance, events, live = random.Random(seed), list[Observed](), list[Added]()
    for number in range(count):
        at = str(FIRST + 2 * number)
        if live and chance.random() < 0.15:
            gone = live.pop(chance.randrange(len(live)))
            events.append(Removed(gone.identity, gone.action_timetoken, at))
        elif events and chance.random() < 0.02:
            events.append(events[-1])
        else:
            message = int(MESSAGES * chance.random() ** 3)
            uuid = f"user-{chance.randrange(10**9):031d}"
            identity = Identity(
                f"channel{message % CHANNELS}", str(FIRST - message), "reaction", chance.choice("👍🎉😀"), uuid
            )
            live.append(Added(identity, at, at))
            events.append(live[-1])
    return events


def truth(events: list[Observed]) -> Counter[tuple[str, str, str]]:
    """Return the counts that must come out."""
    over = {(event.identity, event.action_timetoken) for event in events if isinstance(event, Removed)}
    live = {e.identity for e in events if isinstance(e, Added) and (e.identity, e.action_timetoken) not in over}
    return Counter((identity.channel, identity.message_timetoken, identity.value) for identity in live)


def answers(events: list[Observed]) -> Iterator[bytes]:
    """Yield subscribe answers of 99 events."""
    for start in range(0, len(events), ANSWER):
        messages = [announced(event) for event in events[start : start + ANSWER]]
        document = {"t": {"t": str(FIRST + start + ANSWER), "r": 1}, "m": messages}
        yield json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()


def announced(event: Observed) -> dict[str, object]:
    """Return an event as PubNub sends it."""
    it = event.identity
    data = {
        "type": it.type,
        "value": it.value,
        "actionTimetoken": event.action_timetoken,
        "messageTimetoken": it.message_timetoken,
    }
    kind = "added" if isinstance(event, Added) else "removed"
    return {
        "a": "5",
        "f": 0,
        "e": 3,
        "i": it.uuid,
        "p": {"t": event.published, "r": 1},
        "k": "demo",
        "c": it.channel,
        "d": {"source": "actions", "version": "1.0", "event": kind, "data": data},
    }


def serve(bodies: list[bytes], port: Connection) -> None:
    """Answer each poll with the body that follows its cursor; then hang. Runs in a process of its own."""
    by_cursor = {str(FIRST + number * ANSWER): body for number, body in enumerate(bodies)}

    async def respond(request: web.BaseRequest) -> web.Response:
        cursor = request.query["tt"]
        if body := by_cursor.get(cursor):
            return web.Response(body=body, content_type="application/json")
        await asyncio.sleep(3600)
        return web.Response()

    async def main() -> None:
        runner = web.ServerRunner(web.Server(respond, access_log=None))
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        port.send(runner.addresses[0][1])
        await asyncio.sleep(3600)

    asyncio.run(main())


async def store_alone(url: str, events: list[Observed]) -> float:
    """Return the seconds it takes to apply the events, a script call for each channel and 500 events."""
    by_channel: dict[str, list[Observed]] = {}
    for event in events:
        by_channel.setdefault(event.identity.channel, []).append(event)
    async with connect(url) as redis:
        store = Store(redis, Keys())
        began = time.perf_counter()
        for channel, own in by_channel.items():
            for start in range(0, len(own), 500):
                await store.apply(channel, own[start : start + 500], Origin.LIVE)
        return time.perf_counter() - began


async def live(url: str, events: list[Observed]) -> float:
    """Return the seconds from the first poll to the last cursor saved: SDK, decoding, scripts, cursors."""
    bodies = list(answers(events))
    ours, theirs = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(bodies, theirs), daemon=True)
    server.start()
    try:
        async with (
            connect(url) as redis,
            Client(Keyset("demo", "bench", origin=f"127.0.0.1:{ours.recv()}", tls=False)) as client,
        ):
            marks = Marks(redis, Keys())
            names = Names(tuple(f"channel{number}" for number in range(CHANNELS)))
            applier = Applier(Store(redis, Keys()), marks, 60, elapsed_clock)
            poller = Poller(client, names, Backoff(random.Random(1)), elapsed_clock)

            async def no_repair(*_: object) -> None: ...

            terms = Terms(Interest(), 600, elapsed_clock)
            subscription = Subscription(names, poller, applier, marks, terms, client, Gaps(marks, applier, no_repair))
            await marks.save_cursor(subscription.id, Cursor(str(FIRST), 1))
            last = str(FIRST + len(bodies) * ANSWER)
            began = time.perf_counter()
            running = asyncio.create_task(subscription.run())
            # Redis tells nobody when a cursor is saved.
            while (saved := await marks.cursor(subscription.id)) is None or saved.cursor.timetoken != last:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            seconds = time.perf_counter() - began
            subscription.stop()
            await running
            return seconds
    finally:
        server.kill()
        server.join()


async def differences(url: str, events: list[Observed]) -> int:
    """Return how many counts are wrong."""
    found: Counter[tuple[str, str, str]] = Counter()
    messages = {(event.identity.channel, event.identity.message_timetoken) for event in events}
    async with TallyReader.from_url(url) as reader:
        for channel, message in messages:
            for values in (await reader.get(channel, message)).values():
                found.update({(channel, message, value): count for value, count in values.items()})
    expected = truth(events)
    return sum(found[key] != expected[key] for key in found.keys() | expected.keys())


async def measure(name: str, way: Callable[[str, list[Observed]], Awaitable[float]], count: int, runs: int) -> None:
    """Print median and spread of some runs, each on an empty server and compared with the truth."""
    events, rates = history(count), list[float]()
    for _ in range(runs):
        server = RedisServer()
        try:
            rates.append(count / await way(server.url, events))
            if wrong := await differences(server.url, events):
                raise SystemExit(f"{name}: {wrong} counts are wrong; the figure is void")
        finally:
            server.stop()
    spread = f"{min(rates):,.0f} to {max(rates):,.0f}"
    print(f"{name}: {statistics.median(rates):,.0f} events/s ({spread}; {runs} runs of {count:,} events)")  # noqa: T201


def main() -> None:
    """Measure both ways."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--events", type=int, default=99_000)
    arguments.add_argument("--runs", type=int, default=5)
    chosen = arguments.parse_args()
    configure(LogFormat.JSON, "error")
    asyncio.run(measure("store alone", store_alone, chosen.events, chosen.runs))
    asyncio.run(measure("answer to Redis", live, chosen.events, chosen.runs))


if __name__ == "__main__":
    main()
