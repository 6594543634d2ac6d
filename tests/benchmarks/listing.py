"""A PubNub that only lists, in a process of its own."""

import asyncio
import json
import multiprocessing
from bisect import bisect_left
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
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
Answer = Callable[[str, Mapping[str, str]], str]
"""Takes the path and the query of a request, and returns the body of its answer."""


@dataclass(frozen=True, slots=True)
class GetActions:
    """PubNub's get-actions."""

    lists: Lists

    def __call__(self, path: str, query: Mapping[str, str]) -> str:
        """Answer one page."""
        actions = self.lists.get(path.rpartition("/")[2], [])
        newest = bisect_left(actions, (int(query.get("start", NOW)),))
        oldest = bisect_left(actions, (int(query.get("end", 0)),))
        part = actions[max(oldest, newest - int(query.get("limit", PAGE_SIZE))) : newest]
        return f'{{"status": 200, "data": [{",".join(text for _, text in part)}]}}'


def serve(answer: Answer, latency: float, is_compressed: bool, port: Connection) -> None:
    """Be PubNub's lists and clock; each answer comes so many seconds later."""
    requests = 0

    async def respond(request: web.BaseRequest) -> web.Response:
        nonlocal requests
        if request.path == "/requests":
            return web.json_response(requests)
        if request.path.startswith("/time/"):
            return web.json_response([NOW])
        requests += 1
        body = answer(request.path, request.query)
        await asyncio.sleep(latency)
        response = web.Response(text=body, content_type="application/json")
        if is_compressed:
            response.enable_compression()  # if the client accepts it
        return response

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


def pubnub(lists: Lists, latency: float) -> AbstractAsyncContextManager[str]:
    """Yield the origin of a PubNub that lists these actions."""
    return served(GetActions(lists), latency)


@asynccontextmanager
async def served(
    answer: Answer, latency: float = 0, *, is_compressed: bool = False
) -> AsyncIterator[str]:
    """Yield the origin of a PubNub that answers like this."""
    ours, theirs = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(
        target=serve, args=(answer, latency, is_compressed, theirs), daemon=True
    )
    server.start()
    theirs.close()  # so that it is noticed if the server ends
    try:
        yield await asyncio.to_thread(ours.recv)
    finally:
        server.kill()
        server.join()
