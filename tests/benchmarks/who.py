"""Who chose a value of a very large message: how long a page keeps Redis busy."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from reaction_tally import AsyncTallyReader, Reactor
from reaction_tally.keys import RANKED_ABOVE, Keys
from tests.benchmarks.harness import Benchmark, Figure, expect
from tests.claimed import claim
from tests.client.reactions import Tally, crowd, write
from tests.histories import CHANNEL, MESSAGE
from tests.redis_server import RedisServer
from worker.store.connection import connect

ACTIONS: Final = 25_000
TIMES: Final = 100
THUMB: Final = ("reaction", "👍")
SPREAD: Final = 100
"""Values of the message that is spread over many."""
LIMITS: Final = (50, 1_000)
PLACES: Final[dict[str, Callable[[int, int], int]]] = {
    "first": lambda _count, _limit: 0,
    "middle": lambda count, _limit: count // 2,
    "last": lambda count, limit: max(0, count - limit),
}
"""Which page → how many users stand before it."""


async def microseconds(admin: Any, read: Callable[[], Any], times: int) -> float:
    """Return how long a read keeps Redis busy."""
    await read()
    await admin.config_resetstat()
    for _ in range(times):
        await read()
    stats = await admin.info("commandstats")
    return float(stats["cmdstat_exec"]["usec"]) / times


async def pages(
    admin: Any,
    reader: AsyncTallyReader,
    users: Sequence[Reactor],
    times: int,
) -> dict[str, float]:
    """Return what pages cost, after each has shown the right users."""
    costs = {}
    for limit in LIMITS:
        for name, place in PLACES.items():
            start = place(len(users), limit)
            last = users[start - 1]
            after = f"{last.at}:{last.user}" if start else None

            async def read(limit: int = limit, after: str | None = after) -> Any:
                return await reader.who(CHANNEL, MESSAGE, *THUMB, limit=limit, after=after)

            page = await read()
            expect(tuple(users[start : start + limit]), page.reactors, f"{name} page")
            costs[f"{name}_{limit}"] = await microseconds(admin, read, times)
    return costs


async def one_round(size: float) -> dict[str, float]:
    """Read pages of a message with one value, and with many."""
    count = max(2 * RANKED_ABOVE, round(ACTIONS * size))
    times = max(2, round(TIMES * size))
    others: list[Tally] = [("reaction", f"v{number}") for number in range(1, SPREAD)]
    values: dict[str, float] = {}
    with RedisServer() as server:
        async with (
            connect(server.url) as admin,
            AsyncTallyReader.from_url(server.url) as reader,
        ):
            await claim(admin)
            for name, tallies in (("one", [THUMB]), ("spread", [THUMB, *others])):
                reactions = crowd(count, *tallies)
                await write(admin, reactions)
                costs = await pages(admin, reader, reactions.who(), times)
                values |= {f"{name}_{key}": cost for key, cost in costs.items()}
            await admin.delete(*[key async for key in admin.scan_iter(Keys().pattern + "who:*")])
            values["lost"] = await microseconds(
                admin, lambda: reader.who(CHANNEL, MESSAGE, *THUMB), times
            )
    return values


def lines() -> Iterator[Figure]:
    """Yield the figure of each page."""
    shapes = {"one": "one value", "spread": f"{SPREAD} values"}
    for shape, words in shapes.items():
        for limit in LIMITS:
            for name in PLACES:
                what = f"{words}: {name} page of {limit:,}"
                yield Figure(f"{shape}_{name}_{limit}", what, "µs", at_most=1_000)
    yield Figure("lost", "without the sorted sets: all actions are read", "µs")


BENCHMARK: Final = Benchmark(
    name="who",
    work=(
        f"Read pages of who chose a value of a message with {ACTIONS:,} actions: how long Redis "
        "does nothing else. The target is a millisecond for any page."
    ),
    lines=tuple(lines()),
    round=one_round,
)
