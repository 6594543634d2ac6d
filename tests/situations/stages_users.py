"""Stages: who has claimed the namespace, and what the user of Redis may do."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

from tests.redis_server import RedisServer
from tests.situations.stages_redis import lead_to
from tests.situations.staging import redis_of, set_all, stage
from tests.worlds import World
from worker.store.connection import connect


@stage("another keyset has the namespace")
async def other_keyset(world: World) -> AsyncIterator[None]:
    """A worker of that keyset has claimed it."""
    await claimed(world, subscribe_key="sub-c-other")
    yield


@stage("another schema is in the namespace")
async def other_schema(world: World) -> AsyncIterator[None]:
    """A later version wrote it."""
    await claimed(world, schema="2")
    yield


@stage("tally:meta has lost its schema")
async def lost_schema(world: World) -> AsyncIterator[None]:
    """Another program deleted the field."""
    await claimed(world)
    await redis_of(world).hdel("tally:meta", "schema")
    yield


@stage("nobody knows who is forgotten")
async def lost_key(world: World) -> AsyncIterator[None]:
    """The hashes are there, and their key is not."""
    await claimed(world)
    await redis_of(world).hset("tally:forgotten", "0" * 64, "1")
    yield


@stage("another program wrote into tally:forgotten")
async def strange_field(world: World) -> AsyncIterator[None]:
    """It knew the key's name, and not what the worker writes there."""
    await claimed(world)
    await redis_of(world).hset("tally:forgotten", mapping={"key": "0" * 64, "ana": "1"})
    yield


@stage("the namespace counts other types")
async def other_types(world: World) -> AsyncIterator[None]:
    """Something is counted already."""
    await claimed(world)
    set_all(world, {"TALLY_TYPES": "receipt"})
    yield


@stage("a running worker has another retention")
async def other_retention(world: World) -> AsyncIterator[None]:
    """All processes of a namespace share it."""
    await world.follow(TALLY_RETENTION_DAYS="30")
    set_all(world, {"TALLY_RETENTION_DAYS": "7"})
    yield


async def claimed(world: World, **meta: str) -> None:
    """Let a worker claim the namespace and count a reaction, and end; then change its claim."""
    worker = await world.follow()
    world.react()
    await world.wait_for_counts({"👍": 1})
    await worker.stopped()
    await redis_of(world).delete("tally:subscriptions")
    if meta:
        await redis_of(world).hset("tally:meta", mapping=meta)


ACL: Final = Path(__file__).parents[2] / "deploy" / "redis-users.acl"


def permitted(situation: str, *rules: str) -> None:
    """Register what the worker's user of our file may not do."""

    @stage(situation)
    async def permit(world: World) -> AsyncIterator[None]:
        await permit_user(world, *rules)
        yield


async def permit_user(world: World, *rules: str) -> None:
    """Let the commands have the user of our file, with these rules besides."""
    line = ACL.read_text("utf-8").splitlines()[0]
    _, user, *recipe = line.split()
    recipe.remove("off")
    redis = redis_of(world)
    await redis.execute_command("ACL", "SETUSER", user, "reset", *recipe, "on", ">word", *rules)
    lead_to(world, world.settings["REDIS_URL"].replace("redis://", f"redis://{user}:word@"))


permitted("the user may not TIME", "-time")
permitted("the user may not XADD", "-xadd")
permitted("the user may not EVALSHA", "-evalsha")
permitted("the user may not SCRIPT LOAD", "-script|load")
permitted("the user may not INFO", "-info")
permitted("the user may not PUBLISH", "-publish")
permitted("the user may not use these keys", "resetkeys", "~other:*")


@stage("the password is wrong")
async def wrong_password(world: World) -> AsyncIterator[None]:
    """Of a user that exists."""
    await permit_user(world)
    lead_to(world, world.settings["REDIS_URL"].replace(":word@", ":other@"))
    yield


@stage("REDIS_URL lacks the password")
async def no_password(world: World) -> AsyncIterator[None]:
    """The server wants one."""
    with RedisServer() as server:
        async with connect(server.url) as redis:
            await redis.config_set("requirepass", "word")
        lead_to(world, server.url)
        yield


@stage("a password where none is wanted")
async def needless_password(world: World) -> AsyncIterator[None]:
    """The default user has none."""
    lead_to(world, world.settings["REDIS_URL"].replace("redis://", "redis://:word@"))
    yield
