"""Tasks with Celery, in a module that has the name of the service's own package."""

import asyncio
import os
from typing import Final

from celery import Celery
from celery.signals import worker_init

from reaction_tally import AsyncTallyReader, TallyReader

BROKER: Final = os.environ["BROKER_URL"]
app: Final = Celery("chat", broker=BROKER, backend=BROKER)
reader: Final = TallyReader.from_url(os.environ["REDIS_URL"])
async_reader: Final = AsyncTallyReader.from_url(os.environ["REDIS_URL"])


@worker_init.connect
def check(**_: object) -> None:
    """Make sure that tallies are there, before the processes of the pool begin."""
    reader.check()
    asyncio.run(async_reader.check())


@app.task
def total(channel: str, message: str) -> int:
    """Return how many reactions a message has."""
    return reader.page(channel, [message]).messages[message].total


@app.task
def total_in_a_loop(channel: str, message: str) -> int:
    """Return the same, by an event loop that lives as long as the task."""
    page = asyncio.run(async_reader.page(channel, [message]))
    return page.messages[message].total
