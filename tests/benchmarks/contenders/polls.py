"""A peer's poll loop, as quick as the libraries that a team knows."""

import json
from collections.abc import AsyncIterator, Iterator
from http.client import HTTPConnection
from typing import Any

import aiohttp

from tests.benchmarks.contenders.order import Order

Answer = tuple[str, list[Any]]
"""The cursor after an answer, and its messages."""


def path(order: Order) -> str:
    """Return what is polled."""
    return f"/v2/subscribe/demo/{','.join(order.names)}/0"


def question(cursor: str, region: int) -> str:
    """Return what a poll asks for."""
    return f"?tt={cursor}&tr={region}&uuid=bench"


async def polls(order: Order) -> AsyncIterator[Answer]:
    """Yield every answer, through aiohttp."""
    url = f"http://{order.origin}{path(order)}"
    cursor, region = order.first, 1
    async with aiohttp.ClientSession() as session:
        while cursor != order.last:
            async with session.get(url + question(cursor, region)) as response:
                answer = json.loads(await response.read())
            cursor, region = answer["t"]["t"], answer["t"]["r"]
            yield cursor, answer["m"]


def blocking_polls(order: Order) -> Iterator[Answer]:
    """Yield every answer, through the standard library."""
    connection = HTTPConnection(order.origin)
    cursor, region = order.first, 1
    while cursor != order.last:
        connection.request("GET", path(order) + question(cursor, region))
        answer = json.loads(connection.getresponse().read())
        cursor, region = answer["t"]["t"], answer["t"]["r"]
        yield cursor, answer["m"]
    connection.close()
