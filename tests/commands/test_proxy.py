"""A whole worker in a network where only a proxy may go out."""

import asyncio
from pathlib import Path

import pytest

from tests.source.proxied import HOST, behind_a_proxy
from tests.waiting import wait_until
from tests.worlds import MESSAGE, World


def forget_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the proxies of this machine out."""
    for name in ("no_proxy", "NO_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.delenv(name, raising=False)


async def test_everything_goes_through_the_proxy(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Doctor, polls and the first backfill. Nothing shows the password."""
    forget_proxies(monkeypatch)
    world.add_past(3)
    async with behind_a_proxy(world.emulator.origin, tmp_path) as (proxy, settings):
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
    forget_proxies(monkeypatch)
    async with behind_a_proxy(world.emulator.origin, tmp_path) as (_, settings):
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
    forget_proxies(monkeypatch)
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
