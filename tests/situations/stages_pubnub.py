"""Stages: the way to PubNub, and what PubNub refuses."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trustme

from tests.redis_server import free_port
from tests.situations.places import silent_server, wrong_clock
from tests.situations.staging import set_all, settings, stage
from tests.source.http_proxy import HttpProxy
from tests.source.tls_server import TlsServer
from tests.source.tokens import access_token
from tests.worlds import ROOM, World
from worker.emulator import Grant

HOST = "pubnub.test"
"""A name that only a proxy knows."""
KEYS = ("pub-c-test", "sec-c-test")

settings("PUBNUB_ORIGIN with a scheme", PUBNUB_ORIGIN="https://ps.pndsn.com")
settings("nothing listens at PUBNUB_ORIGIN", PUBNUB_ORIGIN=f"127.0.0.1:{free_port()}")
settings("PubNub's name is unknown", PUBNUB_ORIGIN="nowhere.invalid")
settings("TLS to a port that speaks none", PUBNUB_TLS="true")
settings(
    "the proxy is no HTTP proxy, socks5://",
    PUBNUB_ORIGIN=HOST,
    HTTP_PROXY="socks5://proxy:1080",
)
settings("SSL_CERT_FILE is missing", PUBNUB_TLS="true", SSL_CERT_FILE="{folder}/ca.pem")
settings("a wrong subscribe key", PUBNUB_SUBSCRIBE_KEY="sub-c-other")


@stage("PubNub takes connections and hangs")
async def hanging(world: World) -> AsyncIterator[None]:
    """Nothing is answered."""
    async with silent_server() as port:
        set_all(world, {"PUBNUB_ORIGIN": f"127.0.0.1:{port}"})
        yield


@stage("no TLS to a port that speaks it")
async def plain_to_tls(world: World) -> AsyncIterator[None]:
    """Asked with PUBNUB_TLS=false."""
    async with TlsServer(trustme.CA(), "127.0.0.1").origin() as origin:
        set_all(world, {"PUBNUB_ORIGIN": origin})
        yield


@stage("PubNub's authority is not trusted")
async def unknown_authority(world: World) -> AsyncIterator[None]:
    """As behind a proxy that opens TLS."""
    async with TlsServer(trustme.CA(), "127.0.0.1").origin() as origin:
        set_all(world, {"PUBNUB_ORIGIN": origin, "PUBNUB_TLS": "true"})
        yield


@stage("SSL_CERT_FILE is empty")
async def empty_authorities(world: World) -> AsyncIterator[None]:
    """No certificate is in it."""
    path = world.folder / "ca.pem"
    path.touch()
    set_all(world, {"PUBNUB_TLS": "true", "SSL_CERT_FILE": str(path)})
    yield


@stage("nothing listens at the proxy's port")
async def no_proxy(world: World) -> AsyncIterator[None]:
    """It is away."""
    set_all(world, {"PUBNUB_ORIGIN": HOST, "HTTP_PROXY": f"http://127.0.0.1:{free_port()}"})
    yield


@asynccontextmanager
async def behind(world: World, proxy: HttpProxy, credentials: str = "") -> AsyncIterator[None]:
    """Let TLS to PubNub go through a proxy."""
    async with proxy.address() as address:
        way = {"PUBNUB_ORIGIN": HOST, "PUBNUB_TLS": "true"}
        set_all(world, {**way, "HTTPS_PROXY": f"http://{credentials}{address}"})
        yield


@stage("the proxy refuses the connection")
async def refusing_proxy(world: World) -> AsyncIterator[None]:
    """It does not permit PubNub."""
    async with behind(world, HttpProxy(1, refusal=403)):
        yield


@stage("the proxy wants a password")
async def demanding_proxy(world: World) -> AsyncIterator[None]:
    """HTTPS_PROXY has none."""
    async with behind(world, HttpProxy(1, user="ana:word")):
        yield


@stage("HTTPS_PROXY leads to a Redis")
async def redis_for_a_proxy(world: World) -> AsyncIterator[None]:
    """A port is mixed up."""
    _, _, address = world.settings["REDIS_URL"].rpartition("/")
    way = {"PUBNUB_ORIGIN": HOST, "PUBNUB_TLS": "true"}
    set_all(world, {**way, "HTTPS_PROXY": f"http://{address}"})
    yield


@stage("PubNub refuses one channel")
async def one_refused(world: World) -> AsyncIterator[None]:
    """403 for it alone."""
    set_all(world, {"TALLY_CHANNELS": f"{ROOM},hall"})
    world.state.refuse(["hall"])
    yield


@stage("Access Manager is on, and there is no token")
async def without_token(world: World) -> AsyncIterator[None]:
    """Nothing identifies the worker."""
    world.state.access.switch_on(*KEYS)
    yield


@stage("Message Persistence is off")
async def unsaved(world: World) -> AsyncIterator[None]:
    """PubNub says so to every request of history."""
    world.state.switch_persistence(is_on=False)
    yield


def with_token(world: World, minutes: int, **fields: object) -> None:
    """Give the worker a token that lives so many minutes from now on."""
    token = access_token(180, time.time() + 60 * (minutes - 180), **fields)
    world.state.demand_token(token)
    set_all(world, {"PUBNUB_AUTH_TOKEN": token})


@stage("the token ends within a day")
async def ending_token(world: World) -> AsyncIterator[None]:
    """In two hours and a half."""
    with_token(world, 150)
    yield


@stage("the token has ended")
async def ended_token(world: World) -> AsyncIterator[None]:
    """An hour ago."""
    with_token(world, -60)
    world.state.demand_token("another")
    yield


@stage("the token cannot be read")
async def unreadable_token(world: World) -> AsyncIterator[None]:
    """Half of it was copied. An emulator without Access Manager takes any."""
    set_all(world, {"PUBNUB_AUTH_TOKEN": "half-a-token"})
    yield


@stage("the token is for another user")
async def foreign_token(world: World) -> AsyncIterator[None]:
    """PUBNUB_USER_ID is not the token's."""
    world.state.access.switch_on(*KEYS)
    token = world.state.access.grant(Grant(minutes=60, uuid="ana", channels={ROOM: 1}))
    set_all(world, {"PUBNUB_AUTH_TOKEN": token})
    yield


def signing(world: World, secret: str) -> None:
    """Let the worker sign its requests."""
    world.state.access.switch_on(*KEYS)
    set_all(world, {"PUBNUB_PUBLISH_KEY": KEYS[0], "PUBNUB_SECRET_KEY": secret})


@stage("the secret key is wrong")
async def wrong_secret(world: World) -> AsyncIterator[None]:
    """Signatures do not match."""
    signing(world, "sec-c-other")
    yield


@stage("the clock is off, and requests are signed")
async def clock(world: World) -> AsyncIterator[None]:
    """By five minutes. PubNub permits one."""
    signing(world, KEYS[1])
    set_all(world, dict(wrong_clock(world, 300)))
    yield


@stage("the clock is off")
async def harmless_clock(world: World) -> AsyncIterator[None]:
    """Nothing is signed."""
    set_all(world, dict(wrong_clock(world, 300)))
    yield
