"""An address that says TLS where there is none, or none where there is, is explained."""

import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Final

import pytest
import trustme

from reaction_tally.keys import DEFAULT_NAMESPACE
from tests.redis_cluster import RedisCluster
from tests.redis_server import free_port
from tests.sentinels import SERVICE, Sentinels
from tests.source.tls_server import tls_context, tls_in_front_of
from worker.errors import RedisUnavailableError
from worker.store.connection import connect
from worker.store.preflight import check_fitness
from worker.store.reader import opened_tallies

pytestmark = pytest.mark.processes

SOON: Final = "?socket_connect_timeout=0.2&socket_timeout=0.2"
"""What speaks no TLS never ends a handshake."""
HOURS: Final = 10_000_000
"""Milliseconds: nobody is taken for dead."""


@pytest.fixture(scope="module")
def watched() -> Iterator[Sentinels]:
    """A server that a Sentinel watches."""
    with Sentinels(replicas=0, sentinels=1, down_milliseconds=HOURS) as sentinels:
        yield sentinels


@asynccontextmanager
async def behind_tls(address: str) -> AsyncIterator[str]:
    """Yield the address of this server behind TLS, whose authority nobody trusts."""
    context: ssl.SSLContext = tls_context(trustme.CA(), "127.0.0.1")
    async with tls_in_front_of(address, context) as port:
        yield f"127.0.0.1:{port}"


async def expect(url: str, words: str) -> None:
    """Expect this of a command that reads, and of one that writes."""
    with pytest.raises(RedisUnavailableError) as reading:
        async with opened_tallies(url, DEFAULT_NAMESPACE):
            pass
    async with connect(url) as redis:
        with pytest.raises(RedisUnavailableError) as writing:
            await check_fitness(redis)

    assert words in str(reading.value)
    assert words in str(writing.value)


async def test_a_cluster_without_tls(redis_cluster: RedisCluster) -> None:
    """Its address begins with ``rediss+cluster``."""
    node = redis_cluster.nodes[0].address
    await expect(
        f"rediss+cluster://{node}{SOON}",
        f"{node} speaks no TLS: REDIS_URL begins with rediss+cluster://, write redis+cluster://.",
    )


async def test_a_cluster_with_tls(redis_cluster: RedisCluster) -> None:
    """Its address begins with ``redis+cluster``, and its first node is away."""
    async with behind_tls(redis_cluster.nodes[0].address) as node:
        await expect(
            f"redis+cluster://127.0.0.1:{free_port()},{node}",
            f"{node} speaks TLS: REDIS_URL begins with redis+cluster://, write rediss+cluster://.",
        )


async def test_a_cluster_whose_authority_is_unknown(redis_cluster: RedisCluster) -> None:
    """A command that reads says so, too."""
    async with behind_tls(redis_cluster.nodes[0].address) as node:
        await expect(f"rediss+cluster://{node}", "an authority that is not trusted here")


async def test_sentinels_without_tls(watched: Sentinels) -> None:
    """Their address begins with ``rediss+sentinel``."""
    sentinel = watched.sentinels[0].address
    await expect(
        f"rediss+sentinel://{sentinel}/{SERVICE}{SOON}",
        f"{sentinel} speaks no TLS: REDIS_URL begins with rediss+sentinel://, "
        "write redis+sentinel://. Sentinels and Redis must both speak TLS, or neither.",
    )


async def test_sentinels_with_tls(watched: Sentinels) -> None:
    """Their address begins with ``redis+sentinel``."""
    async with behind_tls(watched.sentinels[0].address) as sentinel:
        await expect(
            f"redis+sentinel://{sentinel}/{SERVICE}",
            f"{sentinel} speaks TLS: REDIS_URL begins with redis+sentinel://, write rediss+",
        )


async def test_a_primary_with_tls_that_plain_sentinels_name(watched: Sentinels) -> None:
    """The Sentinels answer: until they take it for dead, it is the primary."""
    (sentinel,) = watched.sentinels
    async with behind_tls(watched.primary().address) as primary:
        host, port = primary.split(":")
        sentinel.ask("SENTINEL", "MONITOR", "encrypted", host, port, 1)
        sentinel.ask("SENTINEL", "SET", "encrypted", "down-after-milliseconds", HOURS)
        await expect(
            f"redis+sentinel://{sentinel.address}/encrypted",
            f"{primary} speaks TLS: REDIS_URL begins with redis+sentinel://, write rediss+",
        )


async def test_a_host_that_no_name_can_be() -> None:
    """What it speaks cannot be tried: the error stays what it was."""
    for scheme in ("redis", "rediss"):
        await expect(f"{scheme}://a..b", "label empty")  # Python 3.11 adds: or too long
