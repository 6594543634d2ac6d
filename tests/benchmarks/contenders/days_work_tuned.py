"""The day's work, tuned: asyncio, with all that makes it quicker and leaves the script as it is.

msgspec decodes into typed structs. hiredis packs the commands, over the worker's own connection.
The next poll runs while Redis works on the call before. Calls stay in order.
It lacks what ``days_work.py`` lacks. Its decoder knows actions only: any other message ends it.
"""

import asyncio
from asyncio import Task
from collections.abc import AsyncIterator
from typing import Any, Final

import aiohttp
import msgspec
from msgspec import Struct

from tests.benchmarks.contenders.order import CURSOR, Order, Report, Stopwatch, take_part_in_a_loop
from tests.benchmarks.contenders.polls import path, question
from tests.benchmarks.contenders.script import source
from worker.store.connection import connect


class Action(Struct, rename="camel"):
    """An action."""

    type: str
    value: str
    action_timetoken: str
    message_timetoken: str


class Payload(Struct):
    """What happened to an action."""

    event: str
    data: Action


class Message(Struct):
    """An event: its channel, its user, its payload."""

    c: str
    i: str
    d: Payload


class Position(Struct):
    """A cursor."""

    t: str
    r: int


class Answer(Struct):
    """What a poll brings."""

    t: Position
    m: list[Message]


decode: Final = msgspec.json.Decoder(Answer).decode


def whole_answer(answer: Answer) -> tuple[list[str], list[str]]:
    """Return keys and arguments of one call for an answer."""
    keys, arguments = [CURSOR], [answer.t.t]
    for message in answer.m:
        action = message.d.data
        timetoken = action.message_timetoken
        place = f"tally:{{{message.c}}}"
        tally = f"{action.type}:{action.value}"
        keys += (f"{place}:actions:{timetoken}", f"{place}:counts:{timetoken}")
        identity = f"{tally}:{message.i}"
        arguments += (message.d.event, identity, tally, action.action_timetoken)
    return keys, arguments


async def polls(order: Order) -> AsyncIterator[Answer]:
    """Yield every answer."""
    url = f"http://{order.origin}{path(order)}"
    cursor, region = order.first, 1
    async with aiohttp.ClientSession() as session:
        while cursor != order.last:
            async with session.get(url + question(cursor, region)) as response:
                answer = decode(await response.read())
            cursor, region = answer.t.t, answer.t.r
            yield answer


async def contend(order: Order) -> Report:
    """Poll and count, until the last answer is counted."""
    async with connect(order.redis) as redis:
        script = source("days_work.lua")
        await redis.script_load(script)
        count = redis.register_script(script)
        watch = Stopwatch()
        call: Task[Any] | None = None
        async for answer in polls(order):
            keys, arguments = whole_answer(answer)
            if call:
                await call
            call = asyncio.create_task(count(keys, arguments))
            await asyncio.sleep(0)  # the call is sent before the next poll
        if call:
            await call
        return watch.report()


if __name__ == "__main__":
    take_part_in_a_loop(contend)
