"""The documented listener: a synchronous HINCRBY for each action.

It cannot tell a removal from an addition, and counts repetitions. It keeps no cursor:
what comes while it is down is lost.
"""

import threading

from redis import Redis

from tests.benchmarks.contenders.listening import listen
from tests.benchmarks.contenders.order import Order, Report, Stopwatch, take_part


class Tally:
    """Counts, and notes when all is counted."""

    def __init__(self, redis: Redis, events: int) -> None:
        self._redis = redis
        self._left = events
        self.is_over = threading.Event()

    def count(self, key: str, tally: str) -> None:
        """Count one action."""
        self._redis.hincrby(key, tally, 1)
        self._left -= 1
        if not self._left:
            self.is_over.set()


def contend(order: Order) -> Report:
    """Listen, until every event is counted."""
    with Redis.from_url(order.redis) as redis:
        tally = Tally(redis, order.events)
        redis.ping()
        watch = Stopwatch()
        listen(order, tally.count)
        tally.is_over.wait()
        return watch.report()


if __name__ == "__main__":
    take_part(contend)
