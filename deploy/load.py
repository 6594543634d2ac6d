"""The demo's users, for any emulator: ``python load.py HOST:PORT REACTIONS_A_SECOND``.

They react until they are stopped. The messages stay the same,
so after a while half of the reactions are there already.
"""

import asyncio
import signal
import sys
import time
from contextlib import suppress
from random import Random

from worker.demo.crowd import Crowd, places


async def react(origin: str, rate: float) -> None:
    """React to a few messages, some of them popular, for as long as this runs."""
    task = asyncio.current_task()
    assert task  # noqa: S101 - for mypy
    # The first process of a container has no default handler of SIGTERM.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    random = Random()  # noqa: S311 - whose reaction it is, is nobody's secret
    async with Crowd(origin, rate, random.randrange(2**32), places(time.time(), random)) as crowd:
        await crowd.react(float("inf"))


if __name__ == "__main__":
    with suppress(asyncio.CancelledError):
        asyncio.run(react(sys.argv[1], float(sys.argv[2])))
