"""The day's work with a simpler script: one call an event, the calls of an answer pipelined.

The cursor follows in the same pipeline. Nothing makes both one step: a crash counts no event
twice, because an action is kept once. It leaves out what ``days_work.py`` does.
"""

from typing import Any, cast

from redis import Redis

from tests.benchmarks.contenders.order import CURSOR, Order, Report, Stopwatch, take_part
from tests.benchmarks.contenders.polls import blocking_polls
from tests.benchmarks.contenders.script import changes, source


def contend(order: Order) -> Report:
    """Poll and count, until the last answer is counted."""
    with Redis.from_url(order.redis) as redis:
        script = redis.script_load(source("an_event.lua"))
        watch = Stopwatch()
        for cursor, messages in blocking_polls(order):
            pipe = cast("Any", redis.pipeline(transaction=False))
            for keys, arguments in changes(messages):
                pipe.evalsha(script, 2, *keys, *arguments)
            pipe.set(CURSOR, cursor)
            pipe.execute()
        return watch.report()


if __name__ == "__main__":
    take_part(contend)
