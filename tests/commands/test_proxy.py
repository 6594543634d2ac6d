"""A whole worker in a network where only a proxy may go out."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trustme

from tests.source.http_proxy import HttpProxy
from tests.source.tls_server import tls_context, tls_in_front_of
from tests.waiting import wait_until
from tests.worlds import MESSAGE, World

HOST = "pubnub.test"
"""A name that only the proxy knows."""


@asynccontextmanager
async def behind_a_proxy(
    world: World, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[HttpProxy, Mapping[str, str]]]:
    """Put a proxy between the commands and PubNub, which speaks TLS.

    Yield the proxy and the settings.
    """
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "authorities.pem")
    for name in ("no_proxy", "NO_PROXY", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    context: ssl.SSLContext = tls_context(authority, HOST)
    async with tls_in_front_of(world.emulator.origin, context) as port:
        proxy = HttpProxy(port, user="ana:canary")
        async with proxy.address() as address:
            yield (
                proxy,
                {
                    "PUBNUB_ORIGIN": HOST,
                    "PUBNUB_TLS": "true",
                    "SSL_CERT_FILE": str(folder / "authorities.pem"),
                    "HTTPS_PROXY": f"http://ana:canary@{address}",
                },
            )


async def test_everything_goes_through_the_proxy(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Doctor, polls and the first backfill. Nothing shows the password."""
    world.add_past(3)
    async with behind_a_proxy(world, tmp_path, monkeypatch) as (proxy, settings):
        doctor = await world.run_command("doctor", **settings)
        async with world.run_worker(**settings, TALLY_LOG_LEVEL="debug") as worker:
            await world.wait_for_counts({"👍": 3})
            world.react("🎉")
            await world.wait_for_counts({"👍": 3, "🎉": 1})
        shown = await world.run_command("show", "room", MESSAGE, **settings)
        config = await world.run_command("config", **settings)

    assert doctor.code == 0, doctor.out
    assert "🎉" in shown.out
    assert proxy.heads
    assert all(head.startswith(f"CONNECT {HOST}:443 ") for head in proxy.heads)
    for text in (doctor.out, doctor.err, worker.out, worker.err, config.out):
        assert "canary" not in text


async def test_a_proxy_that_stops_is_the_cause_of_an_outage(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log names the proxy, and not PubNub, as what does not answer."""
    async with behind_a_proxy(world, tmp_path, monkeypatch) as (_, settings):
        address = settings["HTTPS_PROXY"].rpartition("@")[2]
    async with world.commands().worker(**settings) as worker:
        await wait_until(lambda: worker.entries("pubnub_unreachable"), what=lambda: worker.err)

    (first, *_) = worker.entries("pubnub_unreachable")
    assert first["reason"] == (
        f"PubNub at {HOST}:443 does not answer: "
        f"the proxy {address} does not answer (connection refused). Check HTTPS_PROXY."
    )


async def test_doctor_names_a_proxy_that_hangs(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes the connection, and says nothing."""
    for name in ("no_proxy", "NO_PROXY", "http_proxy"):
        monkeypatch.delenv(name, raising=False)
    over = asyncio.Event()

    async def wait(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await over.wait()
        writer.close()

    server = await asyncio.start_server(wait, "127.0.0.1", 0)
    address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        settings = {"PUBNUB_ORIGIN": HOST, "HTTP_PROXY": f"http://{address}"}
        ended = await world.run_command("doctor", **settings)
    finally:
        over.set()
        server.close()

    words = f"no answer in 6 s. Does the proxy {address} answer? Check HTTP_PROXY."
    assert f"BAD  PubNub: {words}" in ended.out
