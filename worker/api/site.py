"""The routes of /v1."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.resources import files
from typing import Final

from aiohttp import web

from reaction_tally import AsyncTallyReader
from reaction_tally.connections import server_name
from reaction_tally.loops import AsyncGivenClient
from reaction_tally.operations import Operations
from reaction_tally.pages import source
from reaction_tally.senders import AsyncSender
from worker.api.changes import Changes
from worker.api.failures import ReadFailures
from worker.api.hub import Hub
from worker.api.reads import Reads
from worker.store.connection import RedisClient
from worker.store.scripts import load_script
from worker.web.access import Access
from worker.web.site import Call, Site
from worker.web.streams import Streams

PREFIX: Final = "/v1"
DESCRIPTION_PATH: Final = f"{PREFIX}/openapi.json"


@asynccontextmanager
async def opened_api(
    redis: RedisClient,
    namespace: str,
    streams: Streams,
    access: Access,
    origins: tuple[str, ...] = (),
) -> AsyncIterator[Site]:
    """Yield the site of the API, which reads from this Redis."""
    sender = AsyncSender(AsyncGivenClient(redis), server_name(redis))
    reader = AsyncTallyReader(sender, namespace)
    failures = ReadFailures()
    reads = Reads(reader, failures)
    operations = Operations(namespace, sender.where)
    hub = Hub(operations, sender, failures)
    changes = Changes(hub, streams, sender, operations, failures)
    channel = f"{PREFIX}/channels/{{channel}}"
    routes = {
        f"{channel}/tallies": reads.tallies,
        f"{channel}/messages/{{timetoken}}/who": reads.who,
        f"{channel}/top": reads.top,
        f"{PREFIX}/changes": changes.follow,
        DESCRIPTION_PATH: describe,
    }
    # The worker's user of Redis may load scripts, but run none by its text, as a reader would.
    await load_script(redis, source())
    async with hub.opened():
        yield Site(
            PREFIX,
            routes,
            access,
            origins=origins,
            open_paths=frozenset({DESCRIPTION_PATH}),
        )


async def describe(_: Call) -> web.Response:
    """Answer the description of the API: OpenAPI 3.1."""
    return web.Response(body=description(), content_type="application/json")


def description() -> bytes:
    """Return the description of the API."""
    return files(__package__).joinpath("openapi.json").read_bytes()
