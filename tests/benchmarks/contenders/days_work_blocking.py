"""The day's work as a program that blocks: http.client polls, redis-py counts.

It lacks what ``days_work.py`` lacks, and follows one subscription.
"""

from redis import Redis

from tests.benchmarks.contenders.order import Order, Report, Stopwatch, take_part
from tests.benchmarks.contenders.polls import blocking_polls
from tests.benchmarks.contenders.script import source, whole_answer


def contend(order: Order) -> Report:
    """Poll and count, until the last answer is counted."""
    with Redis.from_url(order.redis) as redis:
        script = source("days_work.lua")
        redis.script_load(script)
        count = redis.register_script(script)
        watch = Stopwatch()
        for cursor, messages in blocking_polls(order):
            count(*whole_answer(cursor, messages))
        return watch.report()


if __name__ == "__main__":
    take_part(contend)
