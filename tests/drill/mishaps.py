"""What happens to several servers that belong together: one by one, in the order of a seed.

Nothing here repairs a tally. A server that ended is started again, as an operator or Kubernetes
does.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from random import Random
from typing import Final, Protocol

from redis.crc import key_slot

from tests.drill.interruptions import (
    Journals,
    missing,
    read_all_journals,
    read_cursors,
    read_journals,
    read_subscriptions,
)
from tests.redis_cluster import RedisCluster
from tests.sentinels import Sentinels
from tests.server_nodes import Node, Nodes
from tests.worlds import KEYS

LOST: Final = 100
"""So many entries at least are lost with a replica that lagged."""
LAG_SECONDS: Final = 5.0
"""A worker that waits for replicas writes no more than a little without one."""
MOVED_CHANNELS: Final = 20
MOVED_RANGE: Final = 400
"""Slots that move at once, at most."""


class Servers(Protocol):
    """What a cluster and a primary with sentinels have in common."""

    def primaries(self) -> Sequence[Node]:
        """Return the nodes that take writes."""

    def replicas_of(self, primary: Node) -> Sequence[Node]:
        """Return the replicas of a primary."""

    def everything(self) -> Sequence[Node]:
        """Return every process."""

    def wait_for_failover(self, primary: Node, replicas: Sequence[Node]) -> None:
        """Return when one of its replicas has taken over from a primary that ended."""

    def fail_over(self, primary: Node, how: str = "") -> None:
        """Make a replica the primary, as planned."""

    def wait_until_healthy(self) -> None:
        """Return when all serve, and every replica follows."""

    def processor(self) -> float:
        """Return the seconds of the processor that all servers have used."""


class ClusterServers:
    """Primaries that share the slots."""

    def __init__(self, cluster: RedisCluster) -> None:
        self.cluster = cluster
        self.primaries = cluster.primaries
        self.replicas_of = cluster.replicas_of
        self.wait_until_healthy = cluster.wait_until_healthy

    def everything(self) -> Sequence[Node]:
        """Return every node."""
        return self.cluster.nodes

    def wait_for_failover(self, primary: Node, replicas: Sequence[Node]) -> None:
        """Return when the replica has taken over."""
        del primary
        self.cluster.wait_for_failover(replicas[0])

    def fail_over(self, primary: Node, how: str = "") -> None:
        """Make the replica the primary."""
        self.cluster.fail_over(self.replicas_of(primary)[0], how)

    def processor(self) -> float:
        """Return the seconds of the processor that all nodes have used."""
        return sum(map(_processor, self.cluster.up()))


class SentinelServers:
    """One primary with its replicas, and sentinels."""

    def __init__(self, sentinels: Sentinels) -> None:
        self._sentinels = sentinels
        self.wait_until_healthy = sentinels.wait_until_healthy

    def primaries(self) -> Sequence[Node]:
        """Return the primary."""
        return [self._sentinels.primary()]

    def replicas_of(self, primary: Node) -> Sequence[Node]:
        """Return the others."""
        return [node for node in self._sentinels.up() if node is not primary]

    def everything(self) -> Sequence[Node]:
        """Return servers and sentinels."""
        return [*self._sentinels.nodes, *self._sentinels.sentinels]

    def wait_for_failover(self, primary: Node, replicas: Sequence[Node]) -> None:
        """Return when a replica has taken over."""
        del replicas
        self._sentinels.wait_for_failover(primary)

    def fail_over(self, primary: Node, how: str = "") -> None:
        """Let the sentinels choose another primary."""
        del primary
        self._sentinels.fail_over(how)

    def processor(self) -> float:
        """Return the seconds of the processor that servers and sentinels have used."""
        return sum(map(_processor, self.everything()))


class OneServer(Nodes):
    """A server that keeps its data as those of a cluster do, and to which nothing happens."""

    def __init__(self) -> None:
        super().__init__(None, None, tls=False)

    def form(self) -> None:
        """Start it."""
        self.start_node({"appendonly": "yes", "save": ""})

    @property
    def url(self) -> str:
        """The address for clients."""
        return self.nodes[0].url

    def primaries(self) -> Sequence[Node]:
        """Return the server."""
        return self.nodes

    def processor(self) -> float:
        """Return the seconds of the processor that it has used."""
        return _processor(self.nodes[0])


@dataclass(slots=True, kw_only=True)
class Mishap:
    """What happened, and to whom."""

    title: str
    began: float = field(default_factory=time.time)
    hit: frozenset[str] = frozenset()
    """The channels of the server, or of the slots."""
    seen: Journals = field(default_factory=dict)
    """Entries of a server that is gone, read just before."""
    lost: int = 0
    """Entries that were acknowledged, and that no server has any more."""
    passed: int = 0
    """Those whose event a cursor on another server has passed."""
    facts: list[str] = field(default_factory=list)

    def since(self, began: float, what: str) -> None:
        """Note how long something took."""
        self.facts.append(f"{what} {time.time() - began:.1f} s")


class Mishaps:
    """All that happens to these servers. Each method returns when every server is well again."""

    def __init__(self, servers: Servers, seed: int) -> None:
        self._servers = servers
        self._random = Random(f"{seed}:mishaps")
        self.when_lost: Callable[[], None] = lambda: None
        """Called just before a primary ends whose replica lagged."""

    def in_order(self) -> list[Callable[[], Mishap]]:
        """Return all of them, in an order of the seed."""
        mishaps = [self.kill, self.fail_over, self.lag, self.lag, self.stop_all]
        if isinstance(self._servers, ClusterServers):
            mishaps += [self.move_keys, self.move_at_once]
        else:
            mishaps.append(self.fail_over_coordinated)
        self._random.shuffle(mishaps)
        return mishaps

    def kill(self) -> Mishap:
        """Kill a primary. A replica takes over, and the killed one comes back as a replica."""
        primary = self._any_primary()
        mishap = _mishap_of("a primary is killed", primary)
        replicas = self._servers.replicas_of(primary)
        primary.kill()
        self._servers.wait_for_failover(primary, replicas)
        mishap.since(mishap.began, "taken over after")
        primary.start()
        self._servers.wait_until_healthy()
        return mishap

    def fail_over(self) -> Mishap:
        """Make a replica the primary, as an operator does before an upgrade."""
        primary = self._any_primary()
        mishap = _mishap_of("a planned failover", primary)
        self._servers.fail_over(primary)
        mishap.since(mishap.began, "done after")
        self._servers.wait_until_healthy()
        return mishap

    def fail_over_coordinated(self) -> Mishap:
        """The same, and the old primary waits until the new one has all."""
        primary = self._any_primary()
        mishap = _mishap_of("a planned failover, coordinated", primary)
        self._servers.fail_over(primary, "COORDINATED")
        mishap.since(mishap.began, "done after")
        self._servers.wait_until_healthy()
        return mishap

    def lag(self) -> Mishap:
        """Kill a primary whose replicas lack its last writes: these are lost."""
        primary = self._any_primary()
        replicas = self._servers.replicas_of(primary)
        for replica in replicas:
            replica.stop_following()
        lagging = time.time()
        seen = self._written(primary, lagging)
        primaries = self._servers.primaries()
        subscriptions = read_subscriptions(primaries)
        cursors = [
            (node, subscriptions.get(name, []), fields)
            for node, name, fields in read_cursors(primaries)
        ]
        mishap = _mishap_of("a replica lagged, its primary is killed", primary)
        mishap.seen = seen
        self.when_lost()
        primary.kill()
        self._servers.wait_for_failover(primary, replicas)
        mishap.since(mishap.began, "taken over after")
        gone = missing(seen, read_all_journals(self._servers.primaries(), lagging))
        mishap.lost = sum(map(len, gone.values()))
        others = [cursor for cursor in cursors if cursor[0] is not primary]
        mishap.passed = sum(_passed(gone, names, fields) for _, names, fields in others)
        mishap.facts.append(
            f"{mishap.lost} acknowledged entries lost, "
            f"{mishap.passed} of them passed by cursors elsewhere"
        )
        for replica in replicas:
            replica.follow_again()
        primary.start()
        self._servers.wait_until_healthy()
        return mishap

    def _written(self, primary: Node, since: float) -> Journals:
        """Return what a primary has written since then, once that is enough."""
        wanted = self._random.randrange(LOST, 4 * LOST)
        deadline = since + LAG_SECONDS
        while True:
            seen = read_journals(primary, since)
            if sum(map(len, seen.values())) >= wanted or time.time() > deadline:
                return seen
            time.sleep(0.05)

    def stop_all(self) -> Mishap:
        """Stop every process at once, and start all of them in any order."""
        nodes = list(self._servers.everything())
        hit = frozenset(read_all_journals(self._servers.primaries(), 0))
        way = self._random.choice(("killed", "ended"))
        mishap = Mishap(title=f"all nodes are {way} and started", hit=hit)
        with ThreadPoolExecutor(len(nodes)) as pool:
            list(pool.map(Node.kill if way == "killed" else Node.end, nodes))
        mishap.since(mishap.began, "all down after")
        self._random.shuffle(nodes)
        for node in nodes:
            node.start()
        self._servers.wait_until_healthy()
        mishap.since(mishap.began, "well after")
        return mishap

    def move_keys(self) -> Mishap:
        """Move the slots of some channels to another primary, key by key."""
        cluster = self._cluster
        source, to = self._random.sample(self._servers.primaries(), 2)
        here = sorted(read_journals(source, time.time()))
        chosen = self._random.sample(here, min(MOVED_CHANNELS, len(here) // 2))
        slots = {_slot(channel) for channel in chosen}
        hit = frozenset(channel for channel in here if _slot(channel) in slots)
        mishap = Mishap(title="slots move key by key", hit=hit)
        cluster.move_slots(slots, to)
        mishap.since(mishap.began, f"{len(slots)} slots, {len(hit)} channels in")
        self._servers.wait_until_healthy()
        return mishap

    def move_at_once(self) -> Mishap:
        """Move a range of slots to another primary, atomically."""
        source, to = self._random.sample(self._servers.primaries(), 2)
        here = sorted(read_journals(source, time.time()))
        slot = _slot(self._random.choice(here))
        ranges = _ranges(source)
        _, end = next(rows for rows in ranges if rows[0] <= slot <= rows[1])
        last = min(end, slot + MOVED_RANGE - 1)
        hit = frozenset(channel for channel in here if slot <= _slot(channel) <= last)
        mishap = Mishap(title="slots move at once", hit=hit)
        self._cluster.move_slots_at_once(slot, last, to)
        mishap.since(mishap.began, f"{last - slot + 1} slots, {len(hit)} channels in")
        self._servers.wait_until_healthy()
        return mishap

    @property
    def _cluster(self) -> RedisCluster:
        assert isinstance(self._servers, ClusterServers)
        return self._servers.cluster

    def _any_primary(self) -> Node:
        # On a busy machine a failover may be under way that nobody asked for.
        self._servers.wait_until_healthy()
        return self._random.choice(self._servers.primaries())


def _processor(node: Node) -> float:
    info = node.info()
    return float(info["used_cpu_user"] + info["used_cpu_sys"])


def _mishap_of(title: str, primary: Node) -> Mishap:
    hit = frozenset(read_journals(primary, time.time()))
    return Mishap(title=title, hit=hit)


def _passed(gone: Journals, names: Sequence[str], cursor: Mapping[str, str]) -> int:
    """Return how many of the lost additions a cursor has passed."""
    newest = [
        max(
            (int(change.action_timetoken) for change in entry.changes if change.event == "added"),
            default=None,
        )
        for name in names
        for entry in gone.get(name, ())
    ]
    return sum(at is not None and at < int(cursor["timetoken"]) for at in newest)


def _slot(channel: str) -> int:
    return int(key_slot(KEYS.head(channel).encode()))


def _ranges(node: Node) -> Iterator[tuple[int, int]]:
    """Yield the ranges of slots that a node owns."""
    name = node.ask("CLUSTER", "MYID")
    for first, last, primary, *_ in node.ask("CLUSTER", "SLOTS"):
        if primary[2] == name:
            yield first, last
