"""What INFO says of a server: its name, its kind, its memory."""

from typing import Any

import pytest

from worker.errors import RedisUnfitError
from worker.store.fitness import Fitness


def check(**info: Any) -> str:
    """Return why a server with this INFO is refused; an empty text if it is not."""
    fitness = Fitness.of({"redis_version": "7.2.4", **info})
    try:
        fitness.check(allow_eviction=False, only_reads=False)
    except RedisUnfitError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    ("version", "recent"), [("5.0.14", False), ("6.0.16", False), ("6.2.0", True), ("7.2.4", True)]
)
def test_redis_6_2_is_the_floor(version: str, recent: bool) -> None:
    """Older versions lack commands that the scripts need."""
    assert (check(redis_version=version) == "") is recent


def test_a_server_is_named_by_its_own_version() -> None:
    """Valkey says 7.2.4 as its version of Redis, whatever its own is."""
    valkey = {"redis_version": "7.2.4", "valkey_version": "9.1.2", "used_memory": 1_572_864}

    assert str(Fitness.of(valkey)) == (
        "Valkey 9.1.2, 1.5 MiB of memory in use, no maxmemory, maxmemory-policy noeviction"
    )
    assert Fitness.of({"redis_version": "7.4.0"}).name == "Redis 7.4.0"


def test_memory_is_said_with_its_limit() -> None:
    """The buffers of clients do not count, as in the server."""
    info = {"used_memory": 3 << 30, "mem_not_counted_for_evict": 1 << 30, "maxmemory": 8 << 30}

    assert Fitness.of(info).memory == "2.0 GiB of 8.0 GiB (maxmemory) in use, 25 %"


@pytest.mark.parametrize(
    ("info", "reason"),
    [
        (
            {"role": "slave", "master_host": "10.0.0.7", "master_port": 6380},
            "the address of the primary: INFO says 10.0.0.7:6380.",
        ),
        ({"role": "slave"}, "the address of the primary: INFO says another host:?."),
        (
            {"used_memory": 2 << 20, "maxmemory": 1 << 20},
            "full and takes no writes: 2.0 MiB of 1.0 MiB (maxmemory) in use, 200 %",
        ),
        ({"maxmemory_policy": "volatile-lru"}, "Redis has maxmemory-policy volatile-lru"),
    ],
    ids=str,
)
def test_an_unfit_server_is_refused(info: dict[str, Any], reason: str) -> None:
    """The sentence says what it is, and what to do."""
    assert reason in check(**info)


def test_what_only_reads_may_read_a_replica() -> None:
    """And a server that is full."""
    info = {"redis_version": "7.2.4", "role": "slave", "used_memory": 2, "maxmemory": 1}

    Fitness.of(info).check(allow_eviction=False, only_reads=True)
