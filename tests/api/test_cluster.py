"""The API reads from a cluster: one node is no reason for another's pages to fail."""

from typing import Any, cast

import pytest

from tests.api.served import served
from tests.client.clusters import KEYS, claim
from tests.client.followers import reaction
from tests.histories import MESSAGE
from tests.redis_cluster import RedisCluster
from tests.store.examples import apply
from worker.api import reads
from worker.store.connection import connect
from worker.store.store import Store

pytestmark = pytest.mark.processes


async def test_a_page_does_not_wait_for_a_node_that_hangs(
    redis_cluster: RedisCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The node has the last heartbeat, and the channel is on another."""
    hanging = redis_cluster.primary_of(KEYS.subscriptions)
    channels = (f"c{number}" for number in range(60))
    channel = next(
        name for name in channels if redis_cluster.primary_of(KEYS.head(name)) is not hanging
    )
    path = f"/v1/channels/{channel}/tallies"
    monkeypatch.setattr(reads, "AGE_TIMEOUT_SECONDS", 0.1, raising=False)
    async with connect(redis_cluster.url) as redis:
        await claim(redis)
        await cast("Any", redis).sadd(KEYS.channels, channel)
        await apply(Store(redis, KEYS), [reaction(1, channel=channel)], channel=channel)
        async with served(redis) as api:
            before = await api.get(path, {"message": MESSAGE})
            hanging.pause()
            try:
                answer = await api.get(path, {"message": MESSAGE})
            finally:
                hanging.resume()

    assert before.json["heartbeat_age_seconds"] is None
    assert answer.status == 200
    assert answer.json["messages"] == before.json["messages"]
    assert "heartbeat_age_seconds" not in answer.json
