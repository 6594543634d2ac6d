"""Tasks of a queue, in threads: each one runs an event loop of its own, as ``async_to_sync`` does.

``python tasks.py CHANNEL MESSAGE HOW_MANY`` prints how many tasks read each result. It ends with
its standard input.
"""

import asyncio
import json
import os
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from reaction_tally import AsyncTallyReader, TallyReadError

THREADS: Final = 8
reader: Final = AsyncTallyReader.from_url(os.environ["REDIS_URL"])


async def read(channel: str, message: str) -> int:
    """Return how many reactions a message has, read twice at once."""
    first, second = await asyncio.gather(*[reader.page(channel, [message]) for _ in range(2)])
    assert first.messages == second.messages
    return first.messages[message].total


def run_task(channel: str, message: str) -> int | str:
    """Run a task; an error is a result, too."""
    try:
        return asyncio.run(read(channel, message))
    except (TallyReadError, RuntimeError) as error:
        return repr(error)


channel, message, how_many = sys.argv[1:]
with ThreadPoolExecutor(THREADS) as threads:
    tasks = [threads.submit(run_task, channel, message) for _ in range(int(how_many))]
    results = Counter(str(task.result()) for task in tasks)
sys.stdout.write(json.dumps(results) + "\n")
sys.stdout.flush()
sys.stdin.read()
