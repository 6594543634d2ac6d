"""The mishaps of a drill do what they say: tried with a writer that is no worker."""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Thread
from typing import Any, Final

import pytest
from redis import RedisCluster as ClusterClient
from redis.cluster import ClusterNode
from redis.exceptions import RedisClusterException, RedisError
from redis.sentinel import Sentinel

from reaction_tally.journal import JournalEntry, read_entry
from tests.drill.interruptions import interruption, missing, read_all_journals, read_heads
from tests.drill.mishaps import LOST, ClusterServers, Mishap, Mishaps, SentinelServers, Servers
from tests.drill.rooms import Rooms
from tests.drill.several_servers import Plan, run
from tests.redis_cluster import RedisCluster
from tests.sentinels import SERVICE, Sentinels
from tests.server_nodes import HOST, wait_for
from tests.worlds import KEYS
from worker.domain.action import Origin

ROOMS: Final = [f"room-{number}" for number in range(60)]
CURSORS: Final = 6
PATIENT: Final = "5000"
"""Milliseconds until a node counts as dead: a busy machine must not fail over by itself."""


class Writer(Thread):
    """Writes journals and cursors as a worker does. It repeats what is not acknowledged."""

    def __init__(self, client: Any) -> None:
        super().__init__()
        self._client = client
        self._ends = Event()

    def run(self) -> None:
        """Write until the end."""
        number = 0
        while not self._ends.is_set():
            number += 1
            with suppress(RedisError, RedisClusterException):
                self._write(ROOMS[number % len(ROOMS)], number)

    def _write(self, room: str, number: int) -> None:
        at = time.time_ns() // 100
        change = f"added applied {at} 1 {at} reaction:👍:user-{number}"
        entry = {"after": "0-0", "origin": "live", "0": change}
        head = self._client.xadd(KEYS.journal(room), entry)
        self._client.set(KEYS.head(room), head)
        cursor = KEYS.cursor(f"cursor-{ROOMS.index(room) % CURSORS}")
        self._client.hset(cursor, "timetoken", str(at + 1))

    def end(self) -> None:
        """Write no more."""
        self._ends.set()
        self.join()


@contextmanager
def writing(client: Any, servers: Servers) -> Iterator[None]:
    """Write for as long as this is open."""
    for number in range(CURSORS):
        names = "\n".join(ROOMS[number::CURSORS])
        client.hset(KEYS.subscriptions, f"cursor-{number}", names)
    writer = Writer(client)
    writer.start()
    try:
        wait_for_counts(servers, time.time())
        yield
    finally:
        writer.end()


def wait_for_counts(servers: Servers, since: float) -> None:
    """Return when each room has an entry that is newer."""

    def are_counted() -> bool:
        heads: dict[str, float] = {}
        for node in servers.primaries():
            heads |= read_heads(node)
        return all(heads.get(room, 0) > since for room in ROOMS)

    wait_for(are_counted, "a room gets no more entries")


def happens(servers: Servers, mishap: str, seed: int = 1) -> Mishap:
    """Let it happen, and wait until every room is written to."""
    happened: Mishap = getattr(Mishaps(servers, seed), mishap)()
    wait_for_counts(servers, time.time())
    return happened


@pytest.fixture(scope="module")
def cluster() -> Iterator[ClusterServers]:
    """A cluster that outlives all that happens to it."""
    with RedisCluster(cluster_node_timeout=PATIENT) as cluster:
        yield ClusterServers(cluster)


@pytest.fixture
def in_cluster(cluster: ClusterServers) -> Iterator[ClusterServers]:
    """The cluster, empty before, under writes."""
    cluster.cluster.clear()
    nodes: Any = [ClusterNode(HOST, node.port) for node in cluster.cluster.nodes]  # type: ignore[no-untyped-call]
    client = ClusterClient(startup_nodes=nodes, decode_responses=True)
    with client, writing(client, cluster):
        yield cluster


@pytest.fixture
def with_sentinels() -> Iterator[SentinelServers]:
    """A primary with two replicas and three sentinels, under writes."""
    with Sentinels() as sentinels:
        watching: Any = Sentinel([(HOST, node.port) for node in sentinels.sentinels])  # type: ignore[no-untyped-call]
        servers = SentinelServers(sentinels)
        client = watching.master_for(SERVICE, decode_responses=True)
        with client, writing(client, servers):
            yield servers


CLUSTER_MISHAPS: Final = ("kill", "fail_over", "move_keys", "move_at_once", "stop_all")


@pytest.mark.parametrize("mishap", CLUSTER_MISHAPS)
def test_a_cluster_goes_on(in_cluster: ClusterServers, mishap: str) -> None:
    """Writes to all channels go on, and the time without them is known."""
    happened = happens(in_cluster, mishap)
    journals = read_all_journals(in_cluster.primaries(), happened.began - 1)
    assert happened.hit
    assert interruption([journals], happened.hit).hit > 0


def test_a_lagged_replica_loses_what_was_acknowledged(in_cluster: ClusterServers) -> None:
    """And cursors on the other primaries have passed some of it: they do not know."""
    happened = happens(in_cluster, "lag")
    assert happened.lost >= LOST
    assert happened.passed


def test_sentinels_promote_a_replica_that_lagged(with_sentinels: SentinelServers) -> None:
    """Acknowledged writes are lost, and a restart of everything undoes no failover."""
    happened = happens(with_sentinels, "lag")
    assert happened.lost
    primary = with_sentinels.primaries()[0]
    happens(with_sentinels, "stop_all")
    assert with_sentinels.primaries()[0] is primary


def entry(milliseconds: int, age: float, origin: Origin = Origin.LIVE) -> JournalEntry:
    """Return an addition that was counted then, and so many seconds old."""
    at = str(round((milliseconds / 1000 - age) * 10_000_000))
    fields = {"after": "0-0", "origin": origin, "0": f"added applied {at} 1 1 reaction:👍:ana"}
    return read_entry(f"{milliseconds}-0", fields)


def test_a_pause_is_between_two_live_counts() -> None:
    """What a repair counts ends no pause. Entries that are gone count as well."""
    kept = {"room": [entry(1_000, 0.1), entry(4_000, 0.5), entry(5_000, 0.2)]}
    gone = {"room": [entry(2_000, 0.1)], "hall": [entry(2_500, 0.1), entry(3_000, 0.1)]}
    repaired = {"room": [entry(3_000, 60, Origin.RECONCILE)]}

    found = interruption([kept, gone, repaired], {"room"})
    assert (found.hit, found.others) == (2.0, 0.5)
    assert math.isclose(found.oldest, 0.5, abs_tol=0.001)
    assert missing(gone, {**kept, "room": gone["room"]}) == {"hall": gone["hall"]}


@pytest.mark.timeout(300)
async def test_what_a_shard_lost_is_repaired(tmp_path: Path) -> None:
    """A worker in a cluster, under load: a replica lagged, and its primary was killed."""
    rooms = Rooms(40, each=8)
    plan = Plan(
        seed=1,
        rate=200,
        rooms=rooms,
        settle_seconds=2,
        node_timeout=int(PATIENT),
        mishaps=("lag",),
    )
    report = await run(plan, tmp_path, print)

    assert report.holds, f"\n{report}"
    assert report.gaps["gap redis_went_back"], f"\n{report}"
