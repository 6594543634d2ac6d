"""The work that is left is counted when it is read, and not for each page."""

from typing import Any, Final, cast

from reaction_tally.keys import Keys
from tests.redis_server import RedisServer
from worker.service.backlog import LISTED, Backlog, Owed
from worker.store.connection import connect
from worker.store.pending_repairs import Marks
from worker.store.proofs import Ages
from worker.store.redis_server import Memory
from worker.store.tables import Tables
from worker.telemetry import metrics

CHANNELS: Final = 3 * LISTED
BLIND: Final = ("ACL", "SETUSER", "blind", "on", "nopass", "~*", "+@all", "-info")
NEVER: Final = Ages(0, 0, 0)


class Repairs(dict[str, Marks]):
    """Marks of channels that say how often they are gone over."""

    passes = 0

    def values(self) -> Any:
        """Note a pass."""
        self.passes += 1
        return super().values()

    def items(self) -> Any:
        """Note a pass."""
        self.passes += 1
        return super().items()


def test_pages_cost_the_same_for_any_number_of_owed_channels() -> None:
    """All of them are counted, and some are listed."""
    repairs = Repairs({f"room{number:05d}": {"overflow": 7_000} for number in range(CHANNELS)})
    repairs["room00000"] = {"overflow": 0, "unproven": 5_000}
    owed = Owed.of(repairs)
    passes = repairs.passes
    backlog = Backlog(
        channels=CHANNELS,
        now_milliseconds=9_000,
        owed=owed,
        backfills={},
        round_began=None,
        recent=NEVER,
        whole=NEVER,
        memory=Memory(60, 80),
    )
    for _ in range(3):
        backlog.measure(1.0)
        status = backlog.as_json()

    assert repairs.passes == passes
    assert status["owed_channels"] == CHANNELS
    assert list(status["owed"]) == sorted(repairs)[:LISTED]
    assert status["owed"]["room00000"].keys() == {"overflow", "unproven"}
    assert metrics.owed.labels("overflow")._value.get() == CHANNELS
    assert metrics.owed.labels("unproven")._value.get() == 1
    assert metrics.owed_age._value.get() == 5.0
    assert metrics.redis_memory._value.get() == 60
    assert metrics.redis_memory_limit._value.get() == 80


async def test_the_memory_of_redis_has_a_limit() -> None:
    """It is maxmemory, or what the machine has; a user who may not see it gets no figure."""
    with RedisServer() as valkey:
        async with connect(valkey.url) as redis:
            server = Tables(redis, Keys()).server
            machine = await server.memory()
            await cast("Any", redis).config_set("maxmemory", 50_000_000)
            limited = await server.memory()
            await cast("Any", redis).execute_command(*BLIND)
        async with connect(valkey.url.replace("://", "://blind:x@")) as blind:
            hidden = await Tables(blind, Keys()).server.memory()

    assert 0 < machine.used < machine.limit
    assert limited.limit == 50_000_000
    assert hidden == Memory(0, 0)
