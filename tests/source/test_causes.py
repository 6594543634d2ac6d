"""Each failure to reach PubNub says host and port, the cause, and what to do."""

import asyncio
import errno
import os
import resource
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import aiohttp
import pytest
import trustme

from tests.redis_server import free_port
from tests.source.scripted import Reply, ScriptedPubNub
from tests.source.tls_server import TlsServer
from worker.errors import PubNubError
from worker.source.causes import cause_of
from worker.source.client import Client, Keyset
from worker.source.route import Route

UNTRUSTED = "its certificate is signed by an authority that is not trusted here"
YESTERDAY = datetime.now(UTC) - timedelta(days=1)


async def sentence(keyset: Keyset) -> str:
    """Ask for the time, and return the sentence of the failure."""
    async with Client(keyset) as client:
        with pytest.raises(PubNubError) as caught:
            await client.time()
    assert caught.value.status is None
    return str(caught.value)


async def test_a_refused_port_is_named(keyset: Keyset) -> None:
    """With the host, the port, and what to check."""
    origin = f"127.0.0.1:{free_port()}"

    assert await sentence(replace(keyset, origin=origin)) == (
        f"PubNub at {origin} does not answer: connection refused. "
        "Check PUBNUB_ORIGIN, the firewall, HTTP_PROXY."
    )


async def test_an_unknown_host_is_named(keyset: Keyset, authority: trustme.CA) -> None:
    """Its port is that of HTTPS, or of HTTP without TLS. Name servers may be away."""
    words = ("there is no such host name", "the host name cannot be looked up now")

    for tls, port, proxy in ((True, 443, "HTTPS_PROXY"), (False, 80, "HTTP_PROXY")):
        said = await sentence(replace(keyset, origin="nowhere.invalid", tls=tls))
        begin = f"PubNub at nowhere.invalid:{port} does not answer: "
        end = f". Check PUBNUB_ORIGIN, the firewall, {proxy}."
        assert said in [f"{begin}{cause}{end}" for cause in words]


async def test_tls_to_a_plain_port_is_named(
    server: ScriptedPubNub, keyset: Keyset, authority: trustme.CA
) -> None:
    """The server answers in plain HTTP, which is no TLS."""
    assert await sentence(replace(keyset, tls=True)) == (
        f"PubNub at {server.origin} does not answer: what listens there does not speak TLS. "
        "Check the port in PUBNUB_ORIGIN, and PUBNUB_TLS."
    )


async def test_a_server_that_hangs_up_at_the_handshake_is_named(
    keyset: Keyset, authority: trustme.CA
) -> None:
    """Some servers say nothing at all to TLS."""
    async with hanging_up() as origin:
        said = await sentence(replace(keyset, origin=origin, tls=True))

    assert said == (
        f"PubNub at {origin} does not answer: "
        "the connection was closed during the TLS handshake. "
        "Check the port in PUBNUB_ORIGIN, and PUBNUB_TLS."
    )


@asynccontextmanager
async def hanging_up() -> AsyncIterator[str]:
    """Serve at an address where every connection is closed after its first bytes."""

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(65_536)
        writer.close()

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


async def test_plain_http_to_a_tls_port_is_named(keyset: Keyset, authority: trustme.CA) -> None:
    """What breaks says to check PUBNUB_TLS."""
    async with TlsServer(authority, "127.0.0.1").origin() as origin:
        said = await sentence(replace(keyset, origin=origin))

    assert said.startswith(f"PubNub at {origin} does not answer (time): ")
    assert said.endswith(". Check the port in PUBNUB_ORIGIN, and PUBNUB_TLS.")


async def test_a_web_server_instead_of_pubnub_is_named(
    server: ScriptedPubNub, client: Client
) -> None:
    """So do many web servers answer plain HTTP at their TLS port, and some proxies."""
    server.script(Reply(400, b"<html>The plain HTTP request was sent to HTTPS port</html>"))

    with pytest.raises(PubNubError) as caught:
        await client.time()

    assert str(caught.value) == (
        "PubNub, time: answered 400, not JSON. Is this PubNub? "
        "Check PUBNUB_ORIGIN, PUBNUB_TLS, HTTPS_PROXY or HTTP_PROXY."
    )


@pytest.mark.parametrize(
    ("name", "is_known", "not_after", "words"),
    [
        (
            "127.0.0.1",
            False,
            None,
            f"{UNTRUSTED}. Name a file with that authority's certificate in SSL_CERT_FILE.",
        ),
        (
            "elsewhere.example",
            True,
            None,
            "its certificate is for another host name. Check PUBNUB_ORIGIN.",
        ),
        (
            "127.0.0.1",
            True,
            YESTERDAY,
            "its certificate has expired. Check the clock of this machine.",
        ),
    ],
    ids=["unknown", "another-name", "expired"],
)
async def test_another_certificate_is_refused(
    keyset: Keyset,
    authority: trustme.CA,
    name: str,
    is_known: bool,
    not_after: datetime | None,
    words: str,
) -> None:
    """Its authority is unknown, its name is another host's, or its time is over."""
    issuer = authority if is_known else trustme.CA()
    async with TlsServer(issuer, name, not_after=not_after).origin() as origin:
        said = await sentence(replace(keyset, origin=origin, tls=True))

    assert said == f"PubNub at {origin} does not answer: {words}"


async def test_too_many_open_files_are_named(
    server: ScriptedPubNub, keyset: Keyset, authority: trustme.CA
) -> None:
    """With the limit. The lookup of a name alone would only say that it failed."""
    for origin in (server.origin, "nowhere.invalid"):
        async with Client(replace(keyset, origin=origin)) as client:
            with pytest.raises(PubNubError) as caught, no_more_files() as limit:
                await client.time()
        assert f"this process has too many open files (its limit is {limit})" in str(caught.value)
        assert "LimitNOFILE" in str(caught.value)


@contextmanager
def no_more_files() -> Iterator[int]:
    """Let this process open no more files; yield the limit."""
    free = os.dup(0)
    os.close(free)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
    try:
        yield free
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (socket.gaierror(socket.EAI_NONAME, "x"), "there is no such host name"),
        (socket.gaierror(socket.EAI_AGAIN, "x"), "the host name cannot be looked up now"),
        (OSError(errno.ENETUNREACH, "x"), "this machine has no route to it"),
        (OSError(errno.EHOSTUNREACH, "x"), "this machine has no route to it"),
        (TimeoutError(errno.ETIMEDOUT, "x"), "no connection in time"),
        (PermissionError(errno.EPERM, "x"), "this machine does not permit the connection"),
        (OSError(errno.ENOBUFS, "x"), "no connection (ENOBUFS)"),
        (OSError("x"), "no connection (OSError)"),
        (ssl.SSLError(1, "x"), "the TLS handshake failed (SSLError)"),
    ],
    ids=repr,
)
def test_other_errors_of_the_system_have_words(error: OSError, words: str) -> None:
    """These need a network to happen. None quotes the words of a library."""
    kind: type[aiohttp.ClientConnectorError] = aiohttp.ClientConnectorError
    if isinstance(error, socket.gaierror):
        kind = aiohttp.ClientConnectorDNSError
    key = aiohttp.client_reqrep.ConnectionKey("pubnub.test", 443, True, True, None, None, None)

    cause = cause_of(kind(key, error), Route.to("pubnub.test", tls=True))

    assert cause.words == words
    assert cause.advice.startswith("Check ")
