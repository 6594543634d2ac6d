"""What can be parted: workers, PubNub's stand-in, and one Redis or the nodes of a cluster."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from redis.asyncio import Redis, RedisCluster

from tests.partitions.link import HOST, Link, Way
from tests.partitions.nodes import LinkedCluster, Place, linked_cluster
from tests.redis_server import MortalServer

WORKERS: Final = HOST
"""The address from which workers connect."""


@dataclass(frozen=True)
class Seam:
    """A place at which the network can be parted."""

    name: str
    change: Callable[[Way], Awaitable[None]]


@dataclass(frozen=True)
class Network:
    """All of it. ``redis`` needs no link."""

    url: str
    redis: Any
    pubnub: Sequence[Link]
    """One for each worker."""
    seams: Sequence[Seam]
    cluster: LinkedCluster | None = None

    async def heal(self) -> None:
        """Open everything; return when Redis is whole again."""
        for seam in self.seams:
            await seam.change(Way.OPEN)
        if self.cluster:
            await asyncio.to_thread(self.cluster.wait_until_healthy)


@asynccontextmanager
async def one_server(folder: Path, workers: int) -> AsyncIterator[Network]:
    """Yield a network with one Redis."""
    server = MortalServer(folder / "redis")
    try:
        async with AsyncExitStack() as stack:
            link = await stack.enter_async_context(Link())
            link.lead_to(server.port)
            redis = await stack.enter_async_context(
                Redis.from_url(server.url, decode_responses=True)
            )
            pubnub = [await stack.enter_async_context(Link()) for _ in range(workers)]
            seam = _seam("workers | Redis", link)
            yield Network(
                f"redis://{HOST}:{link.port}", redis, pubnub, [seam, *_pubnub_seams(pubnub)]
            )
    finally:
        server.destroy()


@asynccontextmanager
async def cluster_of_six(workers: int) -> AsyncIterator[Network]:
    """Yield a network with three primaries and three replicas."""
    async with linked_cluster() as cluster, AsyncExitStack() as stack:
        pubnub = [await stack.enter_async_context(Link()) for _ in range(workers)]
        redis = await stack.enter_async_context(
            RedisCluster(
                host=HOST,
                port=cluster.nodes[0].port,
                address_remap=cluster.direct,
                decode_responses=True,
            )
        )
        seams = [*_pubnub_seams(pubnub), *_node_seams(cluster)]
        yield Network(cluster.url, redis, pubnub, seams, cluster)


def _pubnub_seams(links: Sequence[Link]) -> list[Seam]:
    return [_seam(f"worker {number} | PubNub", link) for number, link in enumerate(links)]


def _seam(name: str, link: Link) -> Seam:
    async def change(way: Way) -> None:
        await link.change(way, WORKERS)

    return Seam(name, change)


def _node_seams(cluster: LinkedCluster) -> list[Seam]:
    seams = []
    for place in cluster.places:
        others = [other for other in cluster.places if other is not place]
        seams.append(_seam(f"workers | node {place.number}", place.clients))
        # Workers reach it: what it acknowledges until it gives up is lost.
        seams.append(_between(cluster, place, others, f"node {place.number} | other nodes"))
        seams.append(_alone(cluster, place, others))
    for one, other in pairwise(cluster.places):
        seams.append(_between(cluster, one, [other], f"node {one.number} | node {other.number}"))
    return seams


def _between(
    cluster: LinkedCluster,
    place: Place,
    others: Sequence[Place],
    name: str,
) -> Seam:
    async def change(way: Way) -> None:
        await cluster.part(way, [place], others)

    return Seam(name, change)


def _alone(
    cluster: LinkedCluster,
    place: Place,
    others: Sequence[Place],
) -> Seam:
    async def change(way: Way) -> None:
        await cluster.part(way, [place], others)
        await place.clients.change(way, WORKERS)

    return Seam(f"node {place.number} | everybody", change)
