"""How fast a reconcile holds a million live actions in Redis against a list, fetching aside."""

import gc
import json
import random
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Final, cast

from redis.asyncio import Redis

from reaction_tally.keys import Keys, action_field
from tests.benchmarks.answering import FIRST
from tests.benchmarks.harness import Benchmark, Figure, expect
from tests.benchmarks.load import data, history
from tests.redis_server import RedisServer
from worker.applying.retry import RetryPolicy
from worker.domain.action import Added
from worker.domain.position import Range, Timetoken, shift
from worker.reconciliation.evidence import Comparison
from worker.reconciliation.list_reader import ListReader
from worker.reconciliation.scan_state import ScanState
from worker.source.answers import decode
from worker.source.backoff import Backoff, elapsed_clock
from worker.source.history import PAGE_SIZE, ListSlice, span
from worker.source.wire import CountedTypes
from worker.store.connection import connect
from worker.store.entries import Entries

ACTIONS: Final = 1_000_000
MESSAGES: Final = 10_000
GONE_EVERY: Final = 1000
"""One action in so many is live in Redis and not listed."""
FILLED_AT_ONCE: Final = 5000
NOW: Final = str(2 * FIRST)


class Listed:
    """PubNub's list as the text of its pages, newest first, with no request between them."""

    def __init__(self, listed: Sequence[Added]) -> None:
        parts = [listed[start : start + PAGE_SIZE] for start in range(0, len(listed), PAGE_SIZE)]
        self._pages = [(part[0].action_timetoken, _text(part)) for part in reversed(parts)]

    async def slices(
        self, _channel: str, _start: object, _end: object, **_: object
    ) -> AsyncIterator[ListSlice]:
        """Yield them as ``History`` does."""
        for oldest, text in self._pages:
            items = tuple(cast("list[object]", decode(text)))
            now = elapsed_clock()
            yield ListSlice(items, span(items), shift(oldest, 1), now, now)


def _text(part: Sequence[Added]) -> bytes:
    items = [{**data(item), "uuid": item.identity.uuid} for item in part]
    return json.dumps(items, ensure_ascii=False, separators=(",", ":")).encode()


async def fill(redis: Redis, actions: Sequence[Added]) -> None:
    """Put live entries where the script puts them."""
    keys, commands = Keys(), cast("Any", redis)
    fields: dict[tuple[str, str], dict[str, str]] = {}
    for item in actions:
        it = item.identity
        field = action_field(it.type, it.value, it.uuid)
        fields.setdefault((it.channel, it.message_timetoken), {})[field] = item.action_timetoken
    places = list(fields.items())
    for start in range(0, len(places), MESSAGES // 100):
        pipe = commands.pipeline(transaction=False)
        for (channel, message), own in places[start : start + MESSAGES // 100]:
            pipe.zadd(keys.messages(channel), {message: 1})
            for first in range(0, len(own), FILLED_AT_ONCE):
                pipe.hset(
                    keys.actions(channel, message),
                    mapping=dict([*own.items()][first : first + FILLED_AT_ONCE]),
                )
        await pipe.execute()


class Timed:
    """Microseconds an action, of what is done between two calls."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._began = time.perf_counter()

    def lap(self) -> float:
        """Return them since the call before, and begin again."""
        began, self._began = self._began, time.perf_counter()
        return (self._began - began) * 1e6 / self._count


async def one_round(size: float) -> Mapping[str, float]:
    """Compare by hand from decoded additions; then as a reconcile does."""
    count = max(2 * GONE_EVERY, round(ACTIONS * size))
    actions = [
        item
        for item in history(count, channels=1, messages=round(MESSAGES * size), removals=0, twice=0)
        if isinstance(item, Added)
    ]
    listed = [item for number, item in enumerate(actions) if number % GONE_EVERY]
    pages = [listed[start : start + PAGE_SIZE] for start in range(0, len(listed), PAGE_SIZE)]
    server = RedisServer()
    try:
        async with connect(server.url) as redis:
            await fill(redis, actions)
            gc.freeze()  # what this benchmark holds is no part of a reconcile
            return await _measured(Entries(redis, Keys()), pages, listed, count)
    finally:
        gc.unfreeze()
        server.stop()


async def _measured(
    entries: Entries, pages: Sequence[Sequence[Added]], listed: Sequence[Added], count: int
) -> Mapping[str, float]:
    channel, values, truth = listed[0].identity.channel, {}, count - len(listed)

    async def now() -> Timetoken:
        return NOW

    policy = RetryPolicy(
        counted_types=CountedTypes(),
        backoff=lambda: Backoff(random.Random(1)),
        hold=cast("Any", None),
        clock=elapsed_clock,
        settle_seconds=60,
    )
    reader = ListReader(cast("Any", Listed(listed)), now, policy)
    comparison = Comparison(reader, entries)
    scan = ScanState(channel=channel, wanted=Range(), horizon=shift(NOW, -1))
    watch = Timed(count)
    async for messages in entries.scan(channel):
        scan.add(messages)
    scan.seen.close()
    values["roll"] = watch.lap()
    for page in reversed(pages):
        scan.mark_seen(page)
    missing = scan.seen.unseen
    values["answer"] = watch.lap()
    expect((count, truth), (len(scan.seen), missing), "roll call")

    async def take(_slice: ListSlice, _added: Sequence[Added]) -> bool:
        return False

    watch.lap()
    whole = await comparison.first_pass(channel, Range(), take)
    values["whole"] = watch.lap()
    expect(
        (count, truth, len(listed)),
        (len(whole.seen), whole.seen.unseen, whole.coverage.listed),
        "first look",
    )
    watch.lap()
    found = sum([len(batch) async for batch in comparison.candidates(whole)])
    values["missing"] = watch.lap()
    expect(truth, found, "who is missing")
    comparing = values["roll"] + values["answer"]
    return {**values, "comparing": comparing, "all": comparing + values["missing"]}


BENCHMARK: Final = Benchmark(
    "reconcile",
    "1,000,000 live actions of one channel on 10,000 messages, one in a thousand not listed. "
    "Nothing is fetched and nothing applied. 5 µs an action are 200,000 actions/s.",
    (
        Figure("roll", "the roll: scan of Redis, adding, closing", "µs an action"),
        Figure("answer", "decoded additions answering it", "µs an action"),
        Figure("comparing", "both: a comparison where all are listed", "µs an action", at_most=5),
        Figure(
            "whole",
            "a first look: the roll, then pages as JSON, decoded, answering",
            "µs an action",
        ),
        Figure("missing", "finding who has not answered: another scan", "µs an action"),
        Figure("all", "the roll, the answers, and who is missing", "µs an action"),
    ),
    one_round,
)
