"""A cluster on loopback: real nodes that are killed, failed over, added, and given other slots.

Every method waits until it is done. In a test with an event loop call it as
``await asyncio.to_thread(cluster.fail_over, replica)``.
"""

import math
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from redis.crc import key_slot

from tests.redis_server import free_port
from tests.server_nodes import HOST, Login, Node, Nodes, wait_for

SLOTS: Final = 16_384
NODE_TIMEOUT_MILLISECONDS: Final = 2000
"""A node that is silent for so long is taken for dead, also where only the machine is busy."""
PATIENT_MILLISECONDS: Final = 60_000
ASKED_AGAIN_SECONDS: Final = 6
"""A node gives a failover up after five seconds."""
MOVED_AT_ONCE: Final = 100
MIGRATE_MILLISECONDS: Final = 5000


class RedisCluster(Nodes):
    """Primaries with replicas. ``with RedisCluster() as cluster: connect(cluster.url)``."""

    def __init__(
        self,
        primaries: int = 3,
        replicas: int = 1,
        *,
        program: Path | None = None,
        login: Login | None = None,
        tls: bool = False,
        **config: str,
    ) -> None:
        """``replicas`` counts those of each primary; ``config`` has the server's options."""
        super().__init__(program, login, tls=tls)
        self._counts = primaries, replicas
        self._config = {name.replace("_", "-"): value for name, value in config.items()}

    @property
    def url(self) -> str:
        """The address for clients, with every node that runs."""
        return self.address()

    def address(self, **options: str) -> str:
        """Return the address with these options."""
        scheme = "rediss+cluster" if self.papers else "redis+cluster"
        hosts = ",".join(node.address for node in self.up())
        return f"{scheme}://{self.login.in_address()}{hosts}{self.query(**options)}"

    def form(self) -> None:
        """Start the nodes, and make a cluster of them."""
        count, replicas = self._counts
        primaries = [self._start() for _ in range(count)]
        for number, node in enumerate(primaries):
            first, end = SLOTS * number // count, SLOTS * (number + 1) // count
            node.ask("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            node.ask("CLUSTER", "ADDSLOTSRANGE", first, end - 1)
        followers = [(self._start(), primary) for primary in primaries for _ in range(replicas)]
        for node in self.nodes[1:]:
            self._meet(node)
        self._wait_until_all_know_all()
        for replica, primary in followers:
            replica.ask("CLUSTER", "REPLICATE", self.name(primary))
        self.wait_until_healthy()

    def _start(self) -> Node:
        return self.start_node(
            {
                "cluster-enabled": "yes",
                "cluster-port": str(free_port()),
                "cluster-node-timeout": str(NODE_TIMEOUT_MILLISECONDS),
                "cluster-replica-validity-factor": "0",
                "cluster-allow-replica-migration": "no",
                "cluster-announce-ip": HOST,
                "appendonly": "yes",
                "save": "",
                "repl-diskless-sync-delay": "0",
                **({"tls-cluster": "yes"} if self.papers else {}),
                **self._config,
            }
        )

    def _meet(self, node: Node) -> None:
        (bus,) = node.ask("CONFIG", "GET", "cluster-port").values()
        self.nodes[0].ask("CLUSTER", "MEET", HOST, node.public_port, bus)

    def _wait_until_all_know_all(self) -> None:
        names = {self.name(node) for node in self.up()}

        def all_know_all() -> bool:
            return all(names <= set(_shaken_hands(node)) for node in self.up())

        wait_for(all_know_all, "the nodes do not get to know each other")

    def wait_until_ok(self) -> None:
        """Return when every node that runs serves, and all agree where each slot is."""

        def is_ok() -> bool:
            views = [_owners(node) for node in self.up()]
            return all(map(_is_ok, self.up())) and len(set(views)) == 1

        wait_for(is_ok, "the cluster does not serve")

    def wait_until_healthy(self) -> None:
        """Return when, besides, every replica that runs follows, and all know of it."""

        def is_healthy() -> bool:
            replicas = [node for node in self.up() if not node.is_primary()]
            names = {self.name(node) for node in replicas}
            all_follow = all(node.is_following() for node in replicas)
            return all_follow and all(names <= _replicas(node) for node in self.up())

        self.wait_until_ok()
        wait_for(is_healthy, "a replica does not follow its primary")

    def have_patience(self) -> None:
        """Let no node take another's place, however busy the machine is."""
        for node in self.up():
            node.ask("CONFIG", "SET", "cluster-node-timeout", PATIENT_MILLISECONDS)

    def clear(self) -> None:
        """Delete every key and every script."""
        for node in self.primaries():
            node.ask("FLUSHALL")
        for node in self.up():
            node.ask("SCRIPT", "FLUSH")

    def name(self, node: Node) -> str:
        """Return the node's id in the cluster."""
        return str(node.ask("CLUSTER", "MYID"))

    def primaries(self) -> list[Node]:
        """Return the nodes that own slots, in the order of their first slot."""
        view = next(iter(self._serving()))
        names = list(dict.fromkeys(name for _, _, name in sorted(_owners(view))))
        nodes = {self.name(node): node for node in self.up()}
        return [nodes[name] for name in names if name in nodes]

    def replicas_of(self, primary: Node) -> list[Node]:
        """Return the replicas of a primary that run."""
        place = ["slave", HOST, primary.public_port]
        return [node for node in self.up() if node.ask("ROLE")[:3] == place]

    def primary_of(self, key: str) -> Node:
        """Return the node that owns the slot of this key."""
        return self.owner(key_slot(key.encode()))

    def owner(self, slot: int) -> Node:
        """Return the node that owns this slot."""
        view = next(iter(self._serving()))
        ((_, _, name),) = (row for row in _owners(view) if row[0] <= slot <= row[1])
        return next(node for node in self.up() if self.name(node) == name)

    def _serving(self) -> Iterable[Node]:
        return (node for node in self.up() if _is_ok(node))

    def fail_over(self, replica: Node, how: str = "") -> None:
        """Make this replica the primary, as planned; FORCE and TAKEOVER ask fewer others."""
        asked_at = -math.inf

        def is_done() -> bool:
            nonlocal asked_at
            # A busy machine may take too long, and then the replica gives up.
            if time.monotonic() - asked_at > ASKED_AGAIN_SECONDS:
                asked_at = time.monotonic()
                replica.ask("CLUSTER", "FAILOVER", *([how] if how else []))
            return replica.is_primary()

        wait_for(is_done, "the replica does not become the primary")
        self.wait_until_ok()

    def wait_for_failover(self, replica: Node) -> None:
        """Return when the others have made this replica the primary."""
        wait_for(replica.is_primary, "the replica does not become the primary")
        self.wait_until_ok()

    def add_node(self, replica_of: Node | None = None) -> Node:
        """Start one more node: a primary without slots, or a replica."""
        node = self._start()
        self._meet(node)
        self._wait_until_all_know_all()
        if replica_of:
            node.ask("CLUSTER", "REPLICATE", self.name(replica_of))
        self.wait_until_healthy()
        return node

    def begin_move(self, slot: int, to: Node) -> Node:
        """Open a slot for a move; return the node it is moved from. Some keys answer ASK."""
        source = self.owner(slot)
        to.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", self.name(source))
        source.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", self.name(to))
        return source

    def move_keys(self, slot: int, source: Node, to: Node) -> int:
        """Move some keys of an open slot; return how many."""
        keys = source.ask("CLUSTER", "GETKEYSINSLOT", slot, MOVED_AT_ONCE)
        if keys:
            there = (HOST, to.public_port, "", 0, MIGRATE_MILLISECONDS)
            source.ask("MIGRATE", *there, *self.login.words(), "KEYS", *keys)
        return len(keys)

    def finish_move(self, slot: int, source: Node, to: Node) -> None:
        """Give the slot to the node, which has its keys."""
        name = self.name(to)
        others = [node for node in self.primaries() if node not in {to, source}]
        for node in [to, source, *others]:
            node.ask("CLUSTER", "SETSLOT", slot, "NODE", name)

    def move_slots(self, slots: Iterable[int], to: Node) -> None:
        """Move slots key by key, as every release does."""
        for slot in slots:
            source = self.begin_move(slot, to)
            while self.move_keys(slot, source, to):
                pass
            self.finish_move(slot, source, to)
        self.wait_until_ok()

    def move_slots_at_once(self, first: int, last: int, to: Node) -> None:
        """Move a range of slots that one node owns, atomically. Valkey 9 and later."""
        source = self.owner(first)
        words = ("SLOTSRANGE", first, last, "NODE", self.name(to))
        source.ask("CLUSTER", "MIGRATESLOTS", *words)
        wait_for(lambda: self.owner(last) is to, "the slots do not move")
        self.wait_until_ok()


def _shaken_hands(node: Node) -> Iterable[str]:
    rows = node.ask("CLUSTER", "NODES").splitlines()
    return [row.split()[0] for row in rows if "handshake" not in row and "noaddr" not in row]


def _is_ok(node: Node) -> bool:
    fields = dict(line.split(":") for line in node.ask("CLUSTER", "INFO").split())
    return bool(fields["cluster_state"] == "ok" and fields["cluster_slots_ok"] == str(SLOTS))


def _owners(node: Node) -> frozenset[tuple[int, int, str]]:
    """Return first slot, last slot, and the owner's id, as this node sees it."""
    rows = node.ask("CLUSTER", "SLOTS")
    return frozenset((first, last, primary[2]) for first, last, primary, *_ in rows)


def _replicas(node: Node) -> set[str]:
    """Return the ids of all replicas, as this node sees them."""
    rows = [row.split() for row in node.ask("CLUSTER", "NODES").splitlines()]
    return {row[0] for row in rows if "slave" in row[2].split(",")}
