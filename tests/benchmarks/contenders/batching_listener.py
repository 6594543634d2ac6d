"""A batching listener: it fills a queue, and a thread pipelines what is there.

Actions of one tally are counted together. It counts removals and repetitions as additions and
keeps no cursor, as ``listener.py``; a crash also loses what is in the queue.
"""

from collections import Counter
from queue import SimpleQueue
from typing import Any, Final, cast

from redis import Redis

from tests.benchmarks.contenders.listening import listen
from tests.benchmarks.contenders.order import Order, Report, Stopwatch, take_part

MOST: Final = 1_000
"""Actions of one pipeline."""

Action = tuple[str, str]
"""A key of counts, and a tally."""


def waiting(queue: SimpleQueue[Action]) -> list[Action]:
    """Return what is in the queue, once there is something."""
    actions = [queue.get()]
    there = min(queue.qsize(), MOST - 1)
    actions += [queue.get_nowait() for _ in range(there)]
    return actions


def count(redis: Redis, actions: list[Action]) -> None:
    """Count them in one round trip."""
    pipe = cast("Any", redis.pipeline(transaction=False))
    for (key, tally), often in Counter(actions).items():
        pipe.hincrby(key, tally, often)
    pipe.execute()


def contend(order: Order) -> Report:
    """Listen, until every event is counted."""
    queue = SimpleQueue[Action]()
    left = order.events
    with Redis.from_url(order.redis) as redis:
        redis.ping()
        watch = Stopwatch()
        listen(order, lambda key, tally: queue.put((key, tally)))
        while left:
            actions = waiting(queue)
            count(redis, actions)
            left -= len(actions)
        return watch.report()


if __name__ == "__main__":
    take_part(contend)
