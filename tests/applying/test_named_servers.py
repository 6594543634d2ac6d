"""The log names the servers that were restarted: of a cluster, of a service of Sentinels, alone."""

import asyncio
from collections.abc import AsyncIterator, MutableMapping
from contextlib import asynccontextmanager
from typing import Any, Final

import pytest
from structlog.testing import capture_logs

from tests.redis_cluster import RedisCluster
from tests.sentinels import Sentinels
from tests.server_nodes import Node
from tests.waiting import wait_until
from worker.domain.position import Cursor
from worker.service.parts import Parts, open_parts
from worker.settings import Settings
from worker.store.script_call import CursorSave

pytestmark = pytest.mark.processes

PATIENT: Final = 30_000
"""Milliseconds: no Sentinel takes a server for dead that is restarted."""


@asynccontextmanager
async def parts_on(url: str) -> AsyncIterator[Parts]:
    """Yield the parts of a worker. None of them asks PubNub."""
    settings = Settings.model_validate({"PUBNUB_SUBSCRIBE_KEY": "demo", "REDIS_URL": url})
    async with open_parts(settings) as parts:
        yield parts


async def restart(node: Node) -> None:
    """End a server, and start it with its data."""
    await asyncio.to_thread(node.end)
    await asyncio.to_thread(node.start)


async def servers_restarted(parts: Parts, node: Node) -> list[Any]:
    """Restart a server under a worker; return what its log names."""
    with capture_logs() as entries:
        await restart(node)

        async def is_logged() -> bool:
            await parts.tables.server.now()
            return bool(named(entries, "redis_restarted"))

        await wait_until(is_logged, what=lambda: str(entries))
    return named(entries, "redis_restarted")


def named(entries: list[MutableMapping[str, Any]], event: str) -> list[Any]:
    """Return the servers of each entry of an event."""
    return [entry["servers"] for entry in entries if entry["event"] == event]


async def test_a_restarted_node_of_a_cluster_is_named(redis_cluster: RedisCluster) -> None:
    """The others were not restarted."""
    _, node, _ = redis_cluster.primaries()
    async with parts_on(redis_cluster.url) as parts:
        assert await servers_restarted(parts, node) == [[node.address]]
    redis_cluster.have_patience()


async def test_a_node_that_was_restarted_between_two_workers_is_named(
    redis_cluster: RedisCluster,
) -> None:
    """The signs of its cursor say so."""
    _, _, node = redis_cluster.primaries()
    async with parts_on(redis_cluster.url) as parts:
        detector = parts.retry.rollback_detector
        await wait_until(lambda: bool(detector.layout))
        save = CursorSave("room", Cursor("17600000000000000", 1), signs=detector.signs_to_save)
        await parts.tables.cursors.save(save)
    await restart(node)
    await asyncio.to_thread(redis_cluster.wait_until_ok)
    redis_cluster.have_patience()

    async def covered() -> list[str]:
        return ["room"]

    async with parts_on(redis_cluster.url) as parts:
        assert parts.shard_doubts
        with capture_logs() as entries:
            await parts.shard_doubts.read_cursor("room", None, covered)
    assert named(entries, "shards_changed") == [[node.address]]


async def test_a_restarted_server_is_named() -> None:
    """By its own address, also where REDIS_URL has that of a Sentinel."""
    with Sentinels(replicas=0, sentinels=1, down_milliseconds=PATIENT) as sentinels:
        node = sentinels.primary()
        for url in (sentinels.url, node.url):
            async with parts_on(url) as parts:
                assert await servers_restarted(parts, node) == [[node.address]]
