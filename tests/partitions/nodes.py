"""A cluster whose nodes reach each other, and are reached by clients, through links.

Each node has an address of its own from which it connects (127.0.1.1, 127.0.1.2, …).
So a link knows who comes. Linux alone gives loopback all of these addresses.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

from tests.partitions.link import HOST, Link, Way
from tests.redis_cluster import RedisCluster
from tests.server_nodes import Node


@dataclass
class Place:
    """Where a node is on the network."""

    number: int
    clients: Link = field(default_factory=Link)
    """Before the port of clients and replicas."""
    bus: Link = field(default_factory=Link)
    """Before the port of the other nodes."""

    @property
    def source(self) -> str:
        """The address from which the node connects."""
        return f"127.0.1.{self.number + 1}"

    async def change(self, way: Way, *sources: str) -> None:
        """Give those who come from there another way to this node."""
        await self.clients.change(way, *sources)
        await self.bus.change(way, *sources)


class LinkedCluster(RedisCluster):
    """Nodes that announce the ports of links."""

    def __init__(self, places: Sequence[Place], primaries: int) -> None:
        super().__init__(primaries, len(places) // primaries - 1)
        self.places = places

    def _start(self) -> Node:
        place = self.places[len(self.nodes)]
        self._config = {
            "bind-source-addr": place.source,
            "cluster-announce-port": str(place.clients.port),
            "cluster-announce-bus-port": str(place.bus.port),
        }
        node = super()._start()
        (bus,) = node.ask("CONFIG", "GET", "cluster-port").values()
        place.clients.lead_to(node.port)
        place.bus.lead_to(int(bus))
        node.public_port = place.clients.port
        node.address = f"{HOST}:{node.public_port}"
        return node

    def _meet(self, node: Node) -> None:
        place = self.places[self.nodes.index(node)]
        self.nodes[0].ask("CLUSTER", "MEET", HOST, place.clients.port, place.bus.port)

    def direct(self, address: tuple[str, int]) -> tuple[str, int]:
        """Return the address of a node itself: a test's own commands need no link."""
        for node in self.nodes:
            if node.public_port == address[1]:
                return HOST, node.port
        return address

    async def part(self, way: Way, apart: Iterable[Place], others: Iterable[Place]) -> None:
        """Give what goes between these nodes and those another way, in both directions."""
        there = list(others)
        for place in apart:
            await place.change(way, *(other.source for other in there))
            for other in there:
                await other.change(way, place.source)


@asynccontextmanager
async def linked_cluster(primaries: int = 3, nodes: int = 6) -> AsyncIterator[LinkedCluster]:
    """Yield a cluster; all processes have ended afterwards."""
    async with AsyncExitStack() as stack:
        places = [Place(number) for number in range(nodes)]
        for place in places:
            await stack.enter_async_context(place.clients)
            await stack.enter_async_context(place.bus)
        cluster = LinkedCluster(places, primaries)
        stack.push_async_callback(asyncio.to_thread, cluster.stop)
        await asyncio.to_thread(cluster.form)
        yield cluster
