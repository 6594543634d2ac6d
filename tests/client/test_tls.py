"""An error names TLS if the address may say it wrongly, as far as redis-py tells."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any, Final

import pytest
import trustme
from redis import exceptions

from reaction_tally import AsyncTallyReader, RedisUnavailableError, TallyReader
from reaction_tally.replies import translated
from tests.client.in_thread import InThread
from tests.redis_server import Forwarder, free_port
from tests.sentinels import SERVICE, Sentinels
from tests.source.tls_server import tls_context

pytestmark = pytest.mark.processes

SOON: Final = "?socket_connect_timeout=0.2&socket_timeout=0.2"
"""For servers that never answer, or never end a handshake."""
HOURS: Final = 10_000_000
"""Milliseconds: nobody is taken for dead."""
HINT: Final = " The address must begin with rediss if the servers speak TLS, and only then."
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
async def answering_in_plain_text() -> AsyncIterator[str]:
    """Yield the address of a server that answers a handshake, as some proxies do."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(65536)
        writer.write(b"-ERR unknown command\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"


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


async def test_no_tls_to_servers_that_speak_it(kind: Any, listening: tuple[str, str, str]) -> None:
    """They close the connection. The sentence says how the address should begin."""
    before, after, host = listening
    _, port = host.split(":")
    context = tls_context(trustme.CA(), "127.0.0.1")
    async with Forwarder(int(port), tls=context) as forwarder:
        encrypted = forwarder.url.removeprefix("rediss://")
        said = await refusal(kind, f"redis{before}{encrypted}{after}")

    assert said.endswith(HINT)


async def test_tls_to_what_answers_in_plain_text(
    kind: Any, listening: tuple[str, str, str]
) -> None:
    """The other way round: OpenSSL says that this is no TLS."""
    before, after, _ = listening
    async with answering_in_plain_text() as host:
        said = await refusal(kind, f"rediss{before}{host}{after}")

    assert said.endswith(HINT)


async def test_tls_to_a_redis_that_speaks_none(listening: tuple[str, str, str]) -> None:
    """Redis waits for the rest of a command, and the handshake never ends.

    In an event loop redis-py does not say what timed out.
    """
    before, after, host = listening
    said = await refusal(TallyReader, f"rediss{before}{host}{after}{SOON}")

    assert said.endswith(HINT)


@pytest.mark.parametrize("scheme", ["redis", "rediss"])
async def test_a_server_that_is_away_has_no_hint(kind: Any, scheme: str) -> None:
    """Nobody takes the connection: whether it speaks TLS does not matter."""
    said = await refusal(kind, f"{scheme}://127.0.0.1:{free_port()}")

    assert "TLS" not in said


async def test_a_failed_read_opens_no_other_connections(kind: Any) -> None:
    """An outage costs nothing beside the reads: a server that hangs has one connection."""
    accepted: list[asyncio.StreamWriter] = []

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        accepted.append(writer)
        await reader.read()
        writer.close()

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    async with server:
        host = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        said = await refusal(kind, f"redis://{host}{SOON}")

    assert "TLS" not in said
    assert len(accepted) == 1


@pytest.mark.parametrize(
    "said",
    [
        "Error while reading from h:1 : (104, 'Connection reset by peer')",
        "Error 32 while writing to socket. Broken pipe.",
    ],
)
def test_a_connection_that_is_reset_has_the_hint(said: str) -> None:
    """So does redis-server end one that begins without TLS."""
    error = translated(exceptions.ConnectionError(said))

    assert str(error) == f"Redis does not answer: {said.rstrip('.')}.{HINT}"
