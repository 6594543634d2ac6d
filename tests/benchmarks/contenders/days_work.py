"""The day's work: a poll loop with aiohttp, and one script call an answer.

The cursor is saved by the same call. It is exact while events come in order.
It has no tombstones, journal, index, quarantine, mark of a gap, repair or backfill.
"""

from redis.asyncio import Redis

from tests.benchmarks.contenders.order import Order, Report, Stopwatch, take_part_in_a_loop
from tests.benchmarks.contenders.polls import polls
from tests.benchmarks.contenders.script import source, whole_answer


async def contend(order: Order) -> Report:
    """Poll and count, until the last answer is counted."""
    async with Redis.from_url(order.redis) as redis:
        script = source("days_work.lua")
        await redis.script_load(script)
        count = redis.register_script(script)
        watch = Stopwatch()
        async for cursor, messages in polls(order):
            await count(*whole_answer(cursor, messages))
        return watch.report()


if __name__ == "__main__":
    take_part_in_a_loop(contend)
