"""Stages: the address of Redis, what answers there, its state, and its users."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trustme
from redis import exceptions

from tests.configured_server import ConfiguredServer
from tests.redis_cluster import RedisCluster
from tests.redis_server import RedisServer, free_port
from tests.sentinels import SERVICE, Sentinels
from tests.situations.places import answering, old_redis, silent_server
from tests.situations.staging import redis_of, set_all, settings, stage
from tests.source.tls_server import tls_context, tls_in_front_of
from tests.waiting import wait_until
from tests.worlds import World
from worker.store.connection import connect
from worker.store.embedded import find_binary

settings("a path behind the database", REDIS_URL="redis://localhost/1/2")
settings("the file of the address is missing", REDIS_URL=None, REDIS_URL_FILE="{folder}/nowhere")
settings("the address stands in two places", REDIS_URL_FILE="{folder}/nowhere")
settings("another scheme", REDIS_URL="http://localhost:6379")
settings("a # in the password", REDIS_URL="redis://:a#b@localhost:6379")
settings("several hosts behind redis://", REDIS_URL="redis://a:6379,b:6379")
settings("an address of Sentinels without a service", REDIS_URL="redis+sentinel://a:26379,b:26379")
settings("an address of a cluster with a database", REDIS_URL="redis+cluster://a:6379,b:6379/1")
settings("no Sentinel answers", REDIS_URL=f"redis+sentinel://127.0.0.1:{free_port()}/{SERVICE}")
settings("REDIS_URL is not set", REDIS_URL=None)
settings("REDIS_URL by another name", REDIS_URL=None, REDIS_URI="redis://localhost")
settings("nothing listens at Redis's port", REDIS_URL=f"redis://127.0.0.1:{free_port()}")
settings("Redis's name is unknown", REDIS_URL="redis://nowhere.invalid")
settings(
    "the file of authorities is missing",
    REDIS_URL="rediss://localhost?ssl_ca_certs={folder}/ca.pem",
)


def lead_to(world: World, url: str) -> None:
    """Let REDIS_URL be this."""
    set_all(world, {"REDIS_URL": url})


@stage("a database that Redis does not have")
async def database(world: World) -> AsyncIterator[None]:
    """Servers have 16."""
    lead_to(world, f"{world.settings['REDIS_URL']}/99")
    yield


@stage("Redis takes connections and hangs")
async def hanging(world: World) -> AsyncIterator[None]:
    """Nothing is answered."""
    async with silent_server() as port:
        lead_to(world, f"redis://127.0.0.1:{port}")
        yield


@stage("a web server is at Redis's port")
async def web(world: World) -> AsyncIterator[None]:
    """It answers HTTP."""
    async with answering(b"HTTP/1.1 400 Bad Request\r\n\r\n") as port:
        lead_to(world, f"redis://127.0.0.1:{port}")
        yield


@stage("redis:// to a port that speaks TLS")
async def plain_to_tls(world: World) -> AsyncIterator[None]:
    """The scheme is wrong."""
    context = tls_context(trustme.CA(), "127.0.0.1")
    async with tls_in_front_of(world.settings["REDIS_URL"], context) as port:
        lead_to(world, f"redis://127.0.0.1:{port}")
        yield


@stage("rediss:// to a port that speaks no TLS")
async def tls_to_plain(world: World) -> AsyncIterator[None]:
    """The other way round."""
    lead_to(world, world.settings["REDIS_URL"].replace("redis://", "rediss://"))
    yield


@stage("Redis's authority is not trusted")
async def unknown_authority(world: World) -> AsyncIterator[None]:
    """A private one, which nothing names."""
    context = tls_context(trustme.CA(), "127.0.0.1")
    async with tls_in_front_of(world.settings["REDIS_URL"], context) as port:
        lead_to(world, f"rediss://127.0.0.1:{port}")
        yield


@stage("Redis wants a certificate of the client")
async def client_certificate(world: World) -> AsyncIterator[None]:
    """REDIS_URL names none."""
    authority = trustme.CA()
    path = written(world, authority.cert_pem.bytes())
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    context.verify_mode = ssl.CERT_REQUIRED
    async with tls_in_front_of(world.settings["REDIS_URL"], context) as port:
        lead_to(world, f"rediss://127.0.0.1:{port}?ssl_ca_certs={path}")
        yield


@stage("the file of authorities is empty")
async def empty_authorities(world: World) -> AsyncIterator[None]:
    """No certificate is in it."""
    lead_to(world, f"rediss://localhost?ssl_ca_certs={written(world, b'')}")
    yield


def written(world: World, content: bytes) -> Path:
    """Write the file of authorities."""
    path = world.folder / "ca.pem"
    path.write_bytes(content)
    return path


@asynccontextmanager
async def watched_server() -> AsyncIterator[Sentinels]:
    """One server, and the Sentinel that watches it."""
    stage = Sentinels(replicas=0, sentinels=1)
    await asyncio.to_thread(stage.__enter__)
    try:
        yield stage
    finally:
        await asyncio.to_thread(stage.stop)


@stage("a Sentinel is at Redis's port")
async def sentinel(world: World) -> AsyncIterator[None]:
    """It holds no data."""
    async with watched_server() as sentinels:
        lead_to(world, f"redis://{sentinels.sentinels[0].address}")
        yield


@stage("redis+sentinel:// to a server that is no Sentinel")
async def no_sentinel(world: World) -> AsyncIterator[None]:
    """A server of data."""
    place = world.settings["REDIS_URL"].removeprefix("redis://")
    lead_to(world, f"redis+sentinel://{place}/{SERVICE}")
    yield


@stage("the Sentinels do not know the service")
async def unknown_service(world: World) -> AsyncIterator[None]:
    """Its name has a slip."""
    async with watched_server() as sentinels:
        lead_to(world, sentinels.address("chat"))
        yield


@stage("the primary of the Sentinels is away")
async def primary_away(world: World) -> AsyncIterator[None]:
    """No replica can take its place."""
    async with watched_server() as sentinels:
        await asyncio.to_thread(sentinels.kill_primary)
        await wait_until(lambda: "s_down" in sentinels.states()[0]["flags"])
        lead_to(world, sentinels.url)
        yield


@stage("Sentinels name the primary")
async def service(world: World) -> AsyncIterator[None]:
    """One that no replica follows."""
    async with watched_server() as sentinels:
        lead_to(world, sentinels.url)
        yield


@asynccontextmanager
async def node_without_slots() -> AsyncIterator[str]:
    """Yield the place of a node that has not been given its slots."""
    bus = str(free_port())
    with ConfiguredServer(find_binary(), cluster_enabled="yes", cluster_port=bus) as node:
        yield node.url.removeprefix("redis://")


@stage("a node of a cluster is at Redis's port")
async def cluster(world: World) -> AsyncIterator[None]:
    """It answers like a server."""
    async with node_without_slots() as place:
        lead_to(world, f"redis://{place}")
        yield


@stage("a cluster lacks slots")
async def slots_missing(world: World) -> AsyncIterator[None]:
    """Nobody has handed them out."""
    async with node_without_slots() as place:
        lead_to(world, f"redis+cluster://{place}")
        yield


@asynccontextmanager
async def formed_cluster(primaries: int) -> AsyncIterator[RedisCluster]:
    """Primaries, each with a replica."""
    stage = RedisCluster(primaries)
    await asyncio.to_thread(stage.__enter__)
    try:
        stage.have_patience()
        await asyncio.to_thread(stage.wait_until_healthy)
        yield stage
    finally:
        await asyncio.to_thread(stage.stop)


@stage("a Redis Cluster")
async def healthy_cluster(world: World) -> AsyncIterator[None]:
    """Of three primaries."""
    async with formed_cluster(3) as nodes:
        lead_to(world, nodes.url)
        yield


@stage("a replica of a cluster may evict")
async def evicting_replica(world: World) -> AsyncIterator[None]:
    """Its primary may not."""
    async with formed_cluster(1) as nodes:
        (replica,) = nodes.replicas_of(nodes.primaries()[0])
        replica.ask("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
        lead_to(world, nodes.url)
        yield


@stage("redis+cluster:// to a server that is no cluster")
async def no_cluster(world: World) -> AsyncIterator[None]:
    """One server."""
    lead_to(world, world.settings["REDIS_URL"].replace("redis://", "redis+cluster://"))
    yield


@stage("Redis is older than 6.2")
async def old(world: World) -> AsyncIterator[None]:
    """A server of 2020."""
    async with old_redis("6.0.20") as port:
        lead_to(world, f"redis://127.0.0.1:{port}")
        yield


@stage("Redis has no INFO")
async def without_info(world: World) -> AsyncIterator[None]:
    """A managed service has renamed it."""
    configuration = world.folder / "valkey.conf"
    configuration.write_text('rename-command INFO ""\n')
    with ConfiguredServer(find_binary(), configuration) as server:
        lead_to(world, server.url)
        yield


@stage("Redis is a replica")
async def replica(world: World) -> AsyncIterator[None]:
    """Of a primary that is away."""
    redis = redis_of(world)
    await redis.execute_command("REPLICAOF", "127.0.0.1", free_port())
    try:
        yield
    finally:
        await redis.execute_command("REPLICAOF", "NO", "ONE")


@stage("Redis has no room for another connection")
async def crowded(world: World) -> AsyncIterator[None]:
    """Somebody holds the only connection that is permitted."""
    with ConfiguredServer(find_binary(), maxclients="1") as server:
        async with connect(server.url) as client:
            await wait_until(lambda: is_let_in(client))
            lead_to(world, server.url)
            yield


async def is_let_in(redis: Any) -> bool:
    """Tell whether the connection is taken: the one that saw the server start may still be open."""
    try:
        return bool(await redis.ping())
    except exceptions.ConnectionError:
        return False


def configured(situation: str, name: str, value: str, healthy: str) -> None:
    """Register a setting of Redis as the stage of a row."""

    @stage(situation)
    async def configure(world: World) -> AsyncIterator[None]:
        await redis_of(world).config_set(name, value)
        try:
            yield
        finally:
            await redis_of(world).config_set(name, healthy)


configured("Redis is full", "maxmemory", "100kb", "0")
configured(
    "Redis deletes keys when memory is short", "maxmemory-policy", "allkeys-lru", "noeviction"
)
configured("Redis lacks its replicas", "min-replicas-to-write", "1", "0")
settings("more replicas are waited for than there are", TALLY_WAIT_REPLICAS="1")


@stage("Redis cannot save to its disk")
async def unsaved(world: World) -> AsyncIterator[None]:
    """A folder is in the way. A server with points of saving refuses writes then."""
    folder = world.folder / "unsaved"
    with RedisServer(folder, save="3600 1") as server:
        lead_to(world, server.url)
        async with connect(server.url) as client:
            redis: Any = client
            (folder / "dump.rdb").mkdir()
            await redis.set("key", "value")
            await redis.bgsave()
            await wait_until(lambda: has_failed_to_save(redis))
        yield
        # Or it would not end: it saves before.
        (folder / "dump.rdb").rmdir()


async def has_failed_to_save(redis: Any) -> bool:
    """Tell whether Redis knows that it cannot save."""
    persistence = await redis.info("persistence")
    return bool(persistence["rdb_last_bgsave_status"] == "err")
