"""An address that says TLS where there is none, or none where there is, is explained."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any, Final

import pytest
import trustme

from reaction_tally import AsyncTallyReader, RedisUnavailableError, TallyReader
from tests.client.in_thread import InThread
from tests.redis_server import Forwarder, RedisServer
from tests.sentinels import SERVICE, Sentinels
from tests.source.tls_server import tls_context, tls_in_front_of

pytestmark = pytest.mark.processes

SOON: Final = "?socket_connect_timeout=0.2&socket_timeout=0.2"
"""What speaks no TLS never ends a handshake."""
HOURS: Final = 10_000_000
"""Milliseconds: nobody is taken for dead."""
SERVERS: Final = ("valkey", "redis_cluster", "watched")


@pytest.fixture(scope="module")
def watched() -> Iterator[Sentinels]:
    """A server that a Sentinel watches."""
    with Sentinels(replicas=0, sentinels=1, down_milliseconds=HOURS) as sentinels:
        yield sentinels


@pytest.fixture(params=SERVERS)
def listening(request: pytest.FixtureRequest) -> tuple[str, str, str]:
    """How an address goes on behind redis or rediss, before and after the host; and the host."""
    servers = request.getfixturevalue(request.param)
    match request.param:
        case "redis_cluster":
            return "+cluster://", "", servers.nodes[0].address
        case "watched":
            return "+sentinel://", f"/{SERVICE}", servers.sentinels[0].address
    return "://", "", servers.url.removeprefix("redis://")


@pytest.fixture(params=[TallyReader, AsyncTallyReader])
def kind(request: pytest.FixtureRequest) -> Any:
    """Both readers."""
    return request.param


@asynccontextmanager
async def behind_tls(address: str) -> AsyncIterator[str]:
    """Yield the address of this server behind TLS."""
    async with tls_in_front_of(address, tls_context(trustme.CA(), "127.0.0.1")) as port:
        yield f"127.0.0.1:{port}"


@asynccontextmanager
async def reader_of(kind: Any, url: str) -> AsyncIterator[Any]:
    """Yield a reader of this address."""
    reader = kind.from_url(url)
    if kind is TallyReader:
        reader = InThread(reader)
    try:
        yield reader
    finally:
        await reader.close()


async def refusal(kind: Any, url: str) -> str:
    """Return why nothing can be read."""
    async with reader_of(kind, url) as reader:
        with pytest.raises(RedisUnavailableError) as raised:
            await reader.channels()
    return str(raised.value)


async def test_tls_to_servers_that_speak_none(kind: Any, listening: tuple[str, str, str]) -> None:
    """The sentence says how the address should begin."""
    before, after, host = listening
    said = await refusal(kind, f"rediss{before}{host}{after}{SOON}")

    assert f"{host} speaks no TLS: the address begins with rediss{before}, " in said
    assert f"write redis{before}." in said


async def test_no_tls_to_servers_that_speak_it(kind: Any, listening: tuple[str, str, str]) -> None:
    """The other way round."""
    before, after, host = listening
    async with behind_tls(host) as encrypted:
        said = await refusal(kind, f"redis{before}{encrypted}{after}")

    assert f"{encrypted} speaks TLS: the address begins with redis{before}, " in said
    assert f"write rediss{before}." in said


async def test_an_address_that_was_right_is_not_doubted(
    kind: Any, valkey: RedisServer, claimed: Any
) -> None:
    """An outage costs no connections beside those that are needed."""
    host = valkey.url.removeprefix("redis://")
    async with (
        behind_tls(host) as encrypted,
        Forwarder(valkey.port) as forwarder,
        reader_of(kind, forwarder.url) as reader,
    ):
        assert await reader.channels() == set()
        _, port = encrypted.split(":")
        await forwarder.switch(int(port))
        with pytest.raises(RedisUnavailableError, match="Redis does not answer"):
            await reader.channels()
