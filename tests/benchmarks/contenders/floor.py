"""The floor: a poll loop over the worker's own client, which counts nothing.

What the worker needs more than this is decoding, counting and saving the cursor.
"""

from tests.benchmarks.contenders.order import Order, Report, Stopwatch, take_part_in_a_loop
from worker.domain.position import Cursor
from worker.source.client import Client, Keyset


async def contend(order: Order) -> Report:
    """Poll, until the last answer has come."""
    keyset = Keyset("demo", "bench", origin=order.origin, tls=False)
    async with Client(keyset) as client:
        watch = Stopwatch()
        cursor = Cursor(order.first, 1)
        while cursor.timetoken != order.last:
            answer = await client.subscribe(order.names, [], cursor)
            cursor = answer.cursor
        return watch.report()


if __name__ == "__main__":
    take_part_in_a_loop(contend)
