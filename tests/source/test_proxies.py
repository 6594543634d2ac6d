"""HTTPS_PROXY, HTTP_PROXY and NO_PROXY: how PubNub is reached where only a proxy may go out."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trustme

from tests.redis_server import free_port
from tests.source.http_proxy import HttpProxy
from tests.source.scripted import (
    LATER,
    SUBSCRIBE_KEY,
    Reply,
    ScriptedPubNub,
    answer,
    json_reply,
)
from tests.source.tls_server import tls_context
from worker.errors import ConfigurationError, PubNubError
from worker.source.client import Client, Keyset, Page
from worker.source.route import Proxy, Route

HOST = "pubnub.test"
"""A name that only the proxy knows."""
VARIABLES = ("HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY")
TIME = json_reply([17600000000000002])


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take away the proxies of this machine."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture
async def secure(authority: trustme.CA) -> AsyncIterator[ScriptedPubNub]:
    """Yield a PubNub that speaks TLS."""
    async with ScriptedPubNub(tls_context(authority, HOST)) as secure:
        yield secure


def keyset(*, tls: bool = True) -> Keyset:
    """Return a keyset of the host behind the proxy."""
    return Keyset(SUBSCRIBE_KEY, "tally", origin=HOST, tls=tls)


def port_of(server: ScriptedPubNub) -> int:
    """Return the port of a PubNub."""
    return int(server.origin.rpartition(":")[2])


@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "https_proxy"])
async def test_polls_and_history_go_through_a_tunnel(
    secure: ScriptedPubNub, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    """The proxy sees the host alone. It is given its user and password, PubNub is not."""
    secure.script(answer("17600000000000002"), under="/v2/subscribe")
    secure.script(json_reply({"status": 200, "data": []}), under="/v1/message-actions")
    proxy = HttpProxy(port_of(secure), user="ana:p@ss")
    async with proxy.address() as address:
        monkeypatch.setenv(variable, f"http://ana:p%40ss@{address}")
        async with Client(keyset()) as client:
            poll = client.subscribe(["room"], [], LATER)
            read, page = await asyncio.gather(poll, client.message_actions("room"))

    assert read.cursor.timetoken == "17600000000000002"
    assert page == Page((), None)
    assert len(secure.requests) == 2
    assert all(head.startswith(f"CONNECT {HOST}:443 HTTP/1.1\r\n") for head in proxy.heads)


async def test_plain_requests_are_forwarded(
    server: ScriptedPubNub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """HTTP_PROXY is for PUBNUB_TLS=false. Its scheme may be left out."""
    server.script(TIME)
    proxy = HttpProxy(port_of(server), user="ana:secret")
    async with proxy.address() as address:
        monkeypatch.setenv("HTTP_PROXY", f"ana:secret@{address}")
        async with Client(keyset(tls=False)) as client:
            assert await client.time() == "17600000000000002"

    assert proxy.heads[0].startswith(f"GET http://{HOST}/time/0?")


@pytest.mark.parametrize(
    ("tls", "refusal", "words"),
    [
        (True, 407, "the user or password of HTTPS_PROXY (407 Proxy Authentication Required)."),
        (True, 403, "the connection (403 Forbidden). Ask who runs the proxy to permit pubnub.te"),
        (True, 599, "the connection (599). Ask who runs the proxy to permit pubnub.test:443, or"),
        (False, 407, "the user or password of HTTP_PROXY (407 Proxy Authentication Required)."),
    ],
)
async def test_a_proxy_that_refuses_is_the_cause(
    secure: ScriptedPubNub,
    monkeypatch: pytest.MonkeyPatch,
    tls: bool,
    refusal: int,
    words: str,
) -> None:
    """Its credentials and its own words are not quoted.

    Without a tunnel only a 407 must be the proxy's.
    """
    async with HttpProxy(1, refusal=refusal).address() as address:
        for variable in ("HTTPS_PROXY", "HTTP_PROXY"):
            monkeypatch.setenv(variable, f"http://canary:canary@{address}")
        async with Client(keyset(tls=tls)) as client:
            with pytest.raises(PubNubError) as caught:
                await client.time()

    assert f"the proxy {address} refuses {words}" in str(caught.value)
    assert "canary" not in str(caught.value)


async def test_a_proxy_that_wants_a_user_is_the_cause(
    authority: trustme.CA, monkeypatch: pytest.MonkeyPatch
) -> None:
    """HTTPS_PROXY has none."""
    async with HttpProxy(1, refusal=407).address() as address:
        monkeypatch.setenv("HTTPS_PROXY", f"http://{address}")
        async with Client(keyset()) as client:
            with pytest.raises(PubNubError, match="Write its user and password in HTTPS_PROXY"):
                await client.time()


@pytest.mark.parametrize("tls", [True, False], ids=["tunnel", "plain"])
@pytest.mark.parametrize(
    ("says", "words"),
    [
        (b"", "the connection broke before the answer was whole"),
        (b"SSH-2.0-canary\r\n\r\n", "what came is not HTTP"),
        (None, "no answer in time"),
    ],
    ids=["closes", "no HTTP", "hangs"],
)
async def test_a_proxy_that_gives_no_answer_is_the_cause(
    authority: trustme.CA,
    monkeypatch: pytest.MonkeyPatch,
    tls: bool,
    says: bytes | None,
    words: str,
) -> None:
    """PubNub was never reached: its settings are not the advice."""
    monkeypatch.setattr("worker.source.endpoints.REQUEST_SECONDS", 1)

    async with broken_proxy(says) as address:
        for variable in ("HTTPS_PROXY", "HTTP_PROXY"):
            monkeypatch.setenv(variable, f"http://{address}")
        async with Client(keyset(tls=tls)) as client:
            with pytest.raises(PubNubError) as caught:
                await client.time()

    said = str(caught.value)
    assert f"the proxy {address} does not answer ({words}). Check HTTP" in said
    assert "PUBNUB_ORIGIN" not in said


async def test_a_web_page_of_a_proxy_is_not_pubnubs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a tunnel anything that answers may be the proxy's own."""
    page = b"HTTP/1.1 403 No\r\nContent-Length: 6\r\n\r\n<html>"
    async with broken_proxy(page) as address:
        monkeypatch.setenv("HTTP_PROXY", f"http://{address}")
        async with Client(keyset(tls=False)) as client:
            with pytest.raises(PubNubError) as caught:
                await client.time()

    assert f"Does the proxy {address} answer in PubNub's place? Check HTTP_PROXY." in str(
        caught.value
    )
    assert "PUBNUB_ORIGIN" not in str(caught.value)


@asynccontextmanager
async def broken_proxy(says: bytes | None) -> AsyncIterator[str]:
    """Yield the address of a proxy that says this and closes, or hangs."""
    over = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        if says is None:
            await over.wait()
        writer.write(says or b"")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        over.set()
        server.close()


async def test_pubnub_behind_a_tunnel_is_the_cause(
    secure: ScriptedPubNub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tunnel stands, and PubNub closes it: the proxy is not to blame."""
    secure.script(Reply(drops=True))
    async with HttpProxy(port_of(secure)).address() as address:
        monkeypatch.setenv("HTTPS_PROXY", f"http://{address}")
        async with Client(keyset()) as client:
            with pytest.raises(PubNubError) as caught:
                await client.time()

    assert "the proxy" not in str(caught.value)
    assert "the connection broke before the answer was whole" in str(caught.value)


async def test_a_proxy_that_is_away_is_the_cause(
    authority: trustme.CA, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not PubNub."""
    for host in (f"127.0.0.1:{free_port()}", "nowhere.invalid:3128"):
        monkeypatch.setenv("HTTPS_PROXY", f"http://canary:canary@{host}")
        async with Client(keyset()) as client:
            with pytest.raises(PubNubError) as caught:
                await client.time()

        said = str(caught.value)
        begin = f"PubNub at pubnub.test:443 does not answer: the proxy {host} does not answer ("
        assert said.startswith(begin)
        assert said.endswith("). Check HTTPS_PROXY.")
        assert "canary" not in said


async def test_a_tunnel_to_an_unknown_authority_is_refused(
    server: ScriptedPubNub, authority: trustme.CA, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proxy that opens TLS needs its authority in SSL_CERT_FILE."""
    async with (
        ScriptedPubNub(tls_context(trustme.CA(), HOST)) as opened,
        HttpProxy(port_of(opened)).address() as address,
    ):
        monkeypatch.setenv("HTTPS_PROXY", f"http://{address}")
        async with Client(keyset()) as client:
            with pytest.raises(PubNubError, match="SSL_CERT_FILE"):
                await client.time()


@pytest.mark.parametrize(
    "text",
    [
        *("pubnub.test", ".test", "*.test", "*.TEST:443", "pubnub.test."),
        *("other.test, PUBNUB.TEST:443", "10.0.0.0/8 ::1 pubnub.test", "*", "x_y, *"),
    ],
)
@pytest.mark.parametrize("variable", ["NO_PROXY", "no_proxy"])
def test_a_host_in_no_proxy_is_reached_directly(
    monkeypatch: pytest.MonkeyPatch, variable: str, text: str
) -> None:
    """By its name, by the end of its name, or with its port."""
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.test:3128")
    assert Route.to(HOST, tls=True).proxy == Proxy("HTTPS_PROXY", "http", "proxy.test:3128")

    monkeypatch.setenv(variable, text)
    assert Route.to(HOST, tls=True).proxy is None


@pytest.mark.parametrize(
    ("origin", "text"),
    [
        ("10.1.2.3", "10.0.0.0/8"),
        ("10.1.2.3:8090", "192.168.0.0/16,10.1.2.3"),
        ("[fd00::1]:8090", "fd00::/8"),
        ("[fd00::1]:8090", "[fd00::1]:8090"),
    ],
)
def test_an_address_in_a_network_of_no_proxy_is_reached_directly(
    monkeypatch: pytest.MonkeyPatch, origin: str, text: str
) -> None:
    """The network may be written as in 10.0.0.0/8."""
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.test:3128")
    monkeypatch.setenv("NO_PROXY", text)

    assert Route.to(origin, tls=True).proxy is None


@pytest.mark.parametrize(
    "text", ["10.0.0.0/8", "test.pubnub", "bnub.test", "pubnub.test:80", "*.pubnub.other", ""]
)
def test_another_host_in_no_proxy_changes_nothing(
    monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    """A part of a name is no end of it."""
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.test:3128")
    monkeypatch.setenv("NO_PROXY", text)

    assert Route.to(HOST, tls=True).proxy is not None


@pytest.mark.parametrize("text", ["10.*", "pub*.test", "http://u:canary@x", "10.0.0.0/99", "<x>"])
def test_another_form_in_no_proxy_is_refused(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """It would have no effect. The sentence says which one, and has the right forms."""
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.test:3128")
    monkeypatch.setenv("NO_PROXY", f"{HOST},{text}")

    with pytest.raises(ConfigurationError, match="NO_PROXY: entry 2 has a form") as caught:
        Route.to(HOST, tls=True)

    assert "canary" not in str(caught.value)


@pytest.mark.parametrize("origin", ["localhost:8090", "127.0.0.1", "[::1]:8090"])
def test_this_machine_is_reached_directly(monkeypatch: pytest.MonkeyPatch, origin: str) -> None:
    """An emulator is never behind a proxy."""
    monkeypatch.setenv("HTTP_PROXY", "http://proxy.test:3128")

    assert Route.to(origin, tls=False).proxy is None


@pytest.mark.parametrize(
    "text",
    ["socks5://canary@proxy.test:1", "http://", "http://canary@proxy:port", "http://[canary"],
)
def test_another_proxy_is_refused(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """The sentence names the variable and the right form, and quotes nothing."""
    monkeypatch.setenv("HTTPS_PROXY", text)

    with pytest.raises(ConfigurationError, match="HTTPS_PROXY names no proxy") as caught:
        Route.to(HOST, tls=True)

    assert "http://user:password@host:port" in str(caught.value)
    assert "canary" not in str(caught.value)


async def test_a_407_of_pubnub_itself_is_its_answer(server: ScriptedPubNub, client: Client) -> None:
    """There is no proxy that could have sent it."""
    server.script(Reply(407, b"{}"))

    with pytest.raises(PubNubError, match="answered 407"):
        await client.time()
