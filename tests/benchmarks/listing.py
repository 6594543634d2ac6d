"""A PubNub that only lists actions, in a process of its own."""

import asyncio
import json
import multiprocessing
from bisect import bisect_left
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from multiprocessing.connection import Connection
from typing import Final

from aiohttp import web

from tests.benchmarks.answering import FIRST
from tests.benchmarks.load import data
from worker.domain.action import Observed

NOW: Final = 2 * FIRST
PAGE_SIZE: Final = 100

Lists = dict[str, list[tuple[int, str]]]
"""Channel → its actions ascending: timetoken, and the JSON that get-actions has."""


def serve(lists: Lists, latency: float, port: Connection) -> None:
    """Be PubNub's get-actions and clock; each answer comes so many seconds later."""
    requests = 0

    def page(channel: str, query: Mapping[str, str]) -> str:
        actions = lists.get(channel, [])
        newest = bisect_left(actions, (int(query.get("start", NOW)),))
        oldest = bisect_left(actions, (int(query.get("end", 0)),))
        part = actions[max(oldest, newest - int(query.get("limit", PAGE_SIZE))) : newest]
        return f'{{"status": 200, "data": [{",".join(text for _, text in part)}]}}'

    async def respond(request: web.BaseRequest) -> web.Response:
        nonlocal requests
        if request.path == "/requests":
            return web.json_response(requests)
        if request.path.startswith("/time/"):
            return web.json_response([NOW])
        requests += 1
        body = page(request.path.rpartition("/")[2], request.query)
        await asyncio.sleep(latency)
        return web.Response(text=body, content_type="application/json")

    async def main() -> None:
        runner = web.ServerRunner(web.Server(respond, access_log=None))
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        port.send(f"127.0.0.1:{runner.addresses[0][1]}")
        await asyncio.sleep(3600)

    asyncio.run(main())


def listed(events: Sequence[Observed]) -> Lists:
    """Return what PubNub lists of these additions."""
    lists: Lists = {}
    for event in events:
        item = {**data(event), "uuid": event.identity.uuid}
        text = json.dumps(item, ensure_ascii=False, separators=(",", ":"))
        lists.setdefault(event.identity.channel, []).append((int(event.action_timetoken), text))
    return lists


@asynccontextmanager
async def pubnub(lists: Lists, latency: float) -> AsyncIterator[str]:
    """Yield the origin of a PubNub that lists this."""
    ours, theirs = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(
        target=serve, args=(lists, latency, theirs), daemon=True
    )
    server.start()
    theirs.close()  # so that it is noticed if the server ends
    try:
        yield await asyncio.to_thread(ours.recv)
    finally:
        server.kill()
        server.join()
