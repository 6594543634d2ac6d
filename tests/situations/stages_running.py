"""Stages: what happens to a worker that runs, and what it does then."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.processes import Child
from tests.redis_server import MortalServer, free_port
from tests.situations.stages_pubnub import with_token
from tests.situations.stages_redis import lead_to
from tests.situations.stages_users import permit_user
from tests.situations.staging import redis_of, set_all, stage
from tests.waiting import wait_until
from tests.worlds import ROOM, World


async def healthy(world: World) -> Child:
    """Start a worker, and return when it is ready."""
    worker = await world.follow()
    await wait_until(worker.is_ready, what=worker.tail)
    return worker


def broken_by(situation: str, *breaks: str | int, mends: tuple[str, ...]) -> None:
    """Register a command of Redis that breaks something under a worker."""

    @stage(situation, while_running=True)
    async def change(world: World) -> AsyncIterator[None]:
        await healthy(world)
        await redis_of(world).execute_command(*breaks)
        world.react()
        try:
            yield
        finally:
            await redis_of(world).execute_command(*mends)


JOURNAL = f"tally:{{{ROOM}}}:journal"
broken_by(
    "another program writes a key of a channel", "SET", JOURNAL, "text", mends=("DEL", JOURNAL)
)
MAXMEMORY = ("CONFIG", "SET", "maxmemory")
broken_by("Redis becomes full", *MAXMEMORY, "100kb", mends=(*MAXMEMORY, "0"))
POLICY = ("CONFIG", "SET", "maxmemory-policy")
broken_by(
    "somebody lets Redis delete keys when memory is short",
    *(*POLICY, "allkeys-lru"),
    mends=(*POLICY, "noeviction"),
)
broken_by(
    "Redis becomes a replica",
    *("REPLICAOF", "127.0.0.1", free_port()),
    mends=("REPLICAOF", "NO", "ONE"),
)
broken_by(
    "Redis answers, but writes hang",
    *("CLIENT", "PAUSE", 600_000, "WRITE"),
    mends=("CLIENT", "UNPAUSE"),
)


@stage("the user loses a permission", while_running=True)
async def forbidden(world: World) -> AsyncIterator[None]:
    """Somebody edits the user."""
    await permit_user(world)
    await healthy(world)
    await redis_of(world).execute_command("ACL", "SETUSER", "tally", "-hset")
    world.react()
    yield


@asynccontextmanager
async def on_a_mortal(world: World) -> AsyncIterator[MortalServer]:
    """Let a worker run on a Redis of its own."""
    server = MortalServer(world.folder / "redis")
    try:
        lead_to(world, server.url)
        await healthy(world)
        yield server
    finally:
        server.destroy()


@stage("Redis stops", while_running=True)
async def stopped(world: World) -> AsyncIterator[None]:
    """Nothing listens any more."""
    async with on_a_mortal(world) as server:
        await server.end()
        world.react()
        yield


@stage("Redis restarts on its own data", while_running=True)
async def restarted(world: World) -> AsyncIterator[None]:
    """It has all that it acknowledged."""
    async with on_a_mortal(world) as server:
        await server.kill()
        await server.revive()
        world.react()
        yield


@stage("Redis loses its data", while_running=True)
async def emptied(world: World) -> AsyncIterator[None]:
    """As FLUSHALL does it. Events show it at once, a heartbeat a little later."""
    await healthy(world)
    world.react()
    await world.wait_for_counts({"👍": 1})
    await redis_of(world).flushall()
    world.react("🎉")
    yield


@stage("a shard has no worker", while_running=True)
async def lonely(world: World) -> AsyncIterator[None]:
    """One of two runs."""
    world.settings["TALLY_CHANNELS"] = ",".join(f"room-{number}" for number in range(20))
    worker = await world.follow(TALLY_SHARD="0/2")
    await wait_until(worker.is_ready, what=worker.tail)
    yield


def outage(situation: str, kind: str, *operations: str) -> None:
    """Register an outage of PubNub under a worker."""

    @stage(situation, while_running=True)
    async def begin(world: World) -> AsyncIterator[None]:
        await healthy(world)
        world.state.set_outage(kind, operations or ("subscribe", "actions", "time", "groups"))
        yield


outage("PubNub fails", "server_error")
outage("PubNub throttles", "throttle")


@stage("PubNub was away for some seconds", while_running=True)
async def was_away(world: World) -> AsyncIterator[None]:
    """Nothing happens afterwards, so the poll is idle."""
    worker = await healthy(world)
    world.state.set_outage("drop")
    await worker.logs("pubnub_unreachable")
    world.state.set_outage(None)
    yield


@stage("PubNub refuses a channel while a worker runs", while_running=True)
async def refused(world: World) -> AsyncIterator[None]:
    """403 for all of them."""
    await healthy(world)
    world.state.refuse([ROOM])
    yield


@stage("the token ends while a worker runs", while_running=True)
async def ended(world: World) -> AsyncIterator[None]:
    """PubNub refuses it. To the doctor it looks good: it was revoked."""
    with_token(world, 60)
    await healthy(world)
    world.state.demand_token("another")
    yield


@stage("the file of the token is gone", while_running=True)
async def lost_token(world: World) -> AsyncIterator[None]:
    """The old one is used until PubNub refuses it."""
    with_token(world, 60)
    path = world.folder / "token"
    path.write_text(str(world.settings["PUBNUB_AUTH_TOKEN"]), "utf-8")
    set_all(world, {"PUBNUB_AUTH_TOKEN": None, "PUBNUB_AUTH_TOKEN_FILE": str(path)})
    await healthy(world)
    path.unlink()
    yield
