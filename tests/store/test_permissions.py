"""A user of Redis who may not run every command: refused at the start, never silent afterwards."""

import re
import shlex
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final

import pytest
from msgspec.structs import replace
from redis.asyncio import Redis

from reaction_tally.keys import Keys
from tests.configured_server import ConfiguredServer, programs
from tests.histories import ANA, BEN, CHANNEL, MESSAGE, added, removed
from tests.mentions import mentions
from tests.ranked import ranked_above
from worker.domain.action import Added, Event, Identity, Origin
from worker.domain.position import from_seconds
from worker.errors import MissingPermissionError, RedisUnfitError
from worker.reading.explain import trace
from worker.store.apply_script import Ttls
from worker.store.audit import Audit
from worker.store.connection import connect
from worker.store.journal import Journal
from worker.store.preflight import check_fitness, check_permissions
from worker.store.scripts import VERBS
from worker.store.snapshot import read_snapshot
from worker.store.store import Store
from worker.store.user_data import UserData
from worker.store.user_erasure import UserErasure

KEYS: Final = Keys()
SCRIPTS: Final = Path(__file__).parents[2] / "worker" / "store" / "lua"
ACL: Final = Path(__file__).parents[2] / "deploy" / "redis-users.acl"
USER: Final = "tally"


def commands_of(*paths: Path) -> set[str]:
    """Return the commands that scripts call, and those that they put together."""
    found: set[str] = set()
    for path in paths:
        code = re.sub(r"--.*", "", path.read_text("utf-8"))
        found.update(re.findall(r"(?:call\(|try\(|\{ )'([A-Z]+)'", code))
    return found


PROBED: Final = sorted(commands_of(SCRIPTS / "probe.lua"))


@pytest.fixture(scope="module", params=sorted(programs()))
def server(request: pytest.FixtureRequest) -> Iterator[ConfiguredServer]:
    """Yield a real server of each make."""
    with ConfiguredServer(programs()[request.param], save="", appendonly="no") as server:
        yield server


@pytest.fixture
async def admin(server: ConfiguredServer) -> AsyncIterator[Any]:
    """Yield a client who may do everything, on an empty server."""
    async with connect(server.url) as admin:
        await admin.flushall()
        yield admin


async def permit(admin: Any, *rules: str) -> None:
    """Change what the user may do."""
    await admin.execute_command("ACL", "SETUSER", USER, *rules)


@asynccontextmanager
async def user_with(admin: Any, server: ConfiguredServer, *rules: str) -> AsyncIterator[Redis]:
    """Yield a client of a user with these permissions and no other."""
    await permit(admin, "reset", "on", ">secret", *rules)
    url = server.url.replace("redis://", f"redis://{USER}:secret@")
    async with connect(url) as redis:
        yield redis


def test_every_command_of_the_scripts_is_tried() -> None:
    """A new command belongs into the probe, unless the scripts do without it."""
    others = [path for path in SCRIPTS.glob("*.lua") if path.name != "probe.lua"]

    assert set(PROBED) >= commands_of(*others) - {"PUBLISH"}
    assert {path.stem for path in SCRIPTS.glob("*.lua")} == set(VERBS)


def test_every_command_beside_the_scripts_is_tried() -> None:
    """What the modules of the store call by the client of Redis."""
    text = "\n".join(path.read_text("utf-8") for path in SCRIPTS.parent.glob("*.py"))
    calls = re.findall(r"(?:_redis|redis|pipe|commands)\.([a-z]+)\(|_each\(\s*\"([a-z]+)\"", text)
    names = {(called or each).upper() for called, each in calls}
    own = {"ACLOSE", "CLOSE", "INITIALIZE", "EXECUTE", "EVALSHA"}
    own |= {"INFO", "PING", "PIPELINE", "PUBLISH"}
    own.add("XREVRANGE")  # `tally tail --since` reads back, and no worker does
    assert {"DEL" if name == "DELETE" else name for name in names} - own <= set(PROBED)


@pytest.mark.parametrize("command", PROBED)
async def test_a_command_that_is_refused_is_named(
    server: ConfiguredServer, admin: Any, command: str
) -> None:
    """With the user, and with what to type. Nothing is written."""
    rules = ("~tally:*", "+@all", f"-{command.lower()}")
    async with user_with(admin, server, *rules) as redis:
        with pytest.raises(RedisUnfitError) as raised:
            await check_permissions(redis, KEYS)
        sentence = str(raised.value)
        assert f"The worker uses {command}, " in sentence
        assert f"not permit to user {USER!r}. As an administrator of Redis, type: " in sentence
        await grant(admin, sentence)
        await check_permissions(redis, KEYS)

    assert await admin.dbsize() == 0


@pytest.mark.parametrize(
    "rules",
    [
        ("~other:*", "+@all"),
        ("+@all",),
        ("~tally:*", "+@all", "-evalsha"),
        ("~tally:*", "+@all", "-@scripting"),
        ("~tally:*", "+@all", "-script|load"),
        ("~tally:*", "+@all", "-multi"),
        ("~tally:*", "+@all", "-exec"),
        ("~tally:*", "+ping", "+info"),
    ],
    ids=str,
)
async def test_a_user_without_the_keys_or_the_scripts_is_refused(
    server: ConfiguredServer, admin: Any, rules: tuple[str, ...]
) -> None:
    """The sentence says all that a worker needs."""
    async with user_with(admin, server, *rules) as redis:
        with pytest.raises(RedisUnfitError) as raised:
            await check_permissions(redis, KEYS)
        await grant(admin, str(raised.value))
        await check_permissions(redis, KEYS)


@pytest.mark.parametrize("name", ["tally-reader", "tally-operator"])
async def test_a_reader_is_not_made_a_writer(
    server: ConfiguredServer, admin: Any, name: str
) -> None:
    """The sentence asks first whether another user is meant."""
    await admin.execute_command("ACL", "SETUSER", name, *rules_of(name), "on", ">secret")
    url = server.url.replace("redis://", f"redis://{name}:secret@")
    async with connect(url) as redis:
        with pytest.raises(RedisUnfitError) as raised:
            await check_all(redis)

    question, _, command = str(raised.value).partition("type: ")
    assert "Is another user meant?" in question
    assert "`tally` has in deploy/redis-users.acl: +@read +@write" in question
    assert command.startswith(f"redis-cli ACL SETUSER {name} ")


async def check_all(redis: Redis) -> None:
    """Check what a worker checks at its start."""
    await check_fitness(redis)
    await check_permissions(redis, KEYS)


def rules_of(name: str) -> list[str]:
    """Return what the file of users lets a user do."""
    lines = ACL.read_text("utf-8").splitlines()
    (rules,) = [line.split() for line in lines if line.startswith(f"user {name} ")]
    return rules[2:]


async def test_another_namespace_has_a_hint_of_its_own(
    server: ConfiguredServer, admin: Any
) -> None:
    """The user may publish there after what the sentence says to type."""
    async with user_with(admin, server, "resetchannels", "+ping", "+info") as redis:
        with pytest.raises(RedisUnfitError) as raised:
            await check_permissions(redis, Keys("other"))
        await grant(admin, str(raised.value))
        assert await redis.publish("other:changed", "room") == 0


async def grant(admin: Any, sentence: str) -> None:
    """Do what a refusal says to type."""
    program, *command = shlex.split(sentence.partition("type: ")[2])
    assert program == "redis-cli"
    await admin.execute_command(*command)


@pytest.mark.parametrize("command", ["xadd", "hset", "zadd", "set", "expire"])
async def test_a_refused_script_loses_no_change(
    server: ConfiguredServer, admin: Any, command: str
) -> None:
    """An ACL changed while a worker runs. The same call is repeated until it is permitted."""
    async with user_with(admin, server, "~tally:*", "+@all", f"-{command}") as redis:
        store = Store(redis, KEYS)
        for _ in range(2):
            with pytest.raises(MissingPermissionError):
                await store.apply_all([(CHANNEL, [added(1)])], Origin.LIVE)
        assert await admin.dbsize() == 0 or command != "xadd"
        await permit(admin, f"+{command}")

        await store.apply_all([(CHANNEL, [added(1)])], Origin.LIVE)

    assert await admin.hgetall(KEYS.counts(CHANNEL, MESSAGE)) == {"reaction:👍": "1"}
    entries = await admin.xrange(KEYS.journal(CHANNEL))
    assert {fields["0"].partition(" ")[0] for _, fields in entries} == {"added"}


@pytest.mark.parametrize(
    "rules",
    [("+@all", "resetchannels"), ("+@all", "-publish"), ("+@all", "-@pubsub", "&*")],
    ids=str,
)
async def test_a_user_who_may_not_publish_writes_all_the_same(
    server: ConfiguredServer, admin: Any, rules: tuple[str, ...]
) -> None:
    """In each script that gives a hint. Followers see the change some seconds later."""
    old = from_seconds(time.time() - 200)
    event = Added(Identity(CHANNEL, old, "reaction", "👍", "ana"), old, old)
    async with user_with(admin, server, "~tally:*", *rules) as redis:
        await check_permissions(redis, KEYS)
        store = Store(redis, KEYS, Ttls(retention_seconds=100))
        await Store(redis, KEYS).apply_all(
            [(CHANNEL, [event, added(1)]), ("hall", [added(1)])], Origin.LIVE
        )
        await admin.delete(KEYS.counts(CHANNEL, MESSAGE))
        assert await store.rebuild(CHANNEL, [MESSAGE]) == 1
        assert await store.sweep(CHANNEL) == 2

    assert len(await admin.xrange(KEYS.journal(CHANNEL))) == 3


async def test_a_refused_sweep_loses_no_change(server: ConfiguredServer, admin: Any) -> None:
    """The end of a message is journaled, too."""
    old = from_seconds(time.time() - 200)
    event = Added(Identity(CHANNEL, old, "reaction", "👍", "ana"), old, old)
    async with user_with(admin, server, "~tally:*", "+@all", "-xadd") as redis:
        await Store(admin, KEYS).apply_all([(CHANNEL, [event])], Origin.LIVE)
        store = Store(redis, KEYS, Ttls(retention_seconds=100))
        with pytest.raises(MissingPermissionError):
            await store.sweep(CHANNEL)
        await permit(admin, "+xadd")

        assert await store.sweep(CHANNEL) == 1

    _, (_, fields) = await admin.xrange(KEYS.journal(CHANNEL))
    assert fields["0"].startswith("expired applied ")


@pytest.mark.parametrize("command", ["xadd", "set", "hset", "hdel", "zrem", "unlink", "expire"])
async def test_a_refused_erasure_is_completed_by_the_next(
    server: ConfiguredServer, admin: Any, command: str
) -> None:
    """What was written is written again. No count is wrong afterwards, and no name is left."""
    with ranked_above(1):
        events: list[Event] = [added(1), added(1, BEN), removed(2, replace(ANA, value="🎉"))]
        events += [added(1, replace(ANA, value="❤")), added(1, replace(BEN, value="🔥"))]
        await Store(admin, KEYS).apply_all([(CHANNEL, events)], Origin.LIVE)
        async with user_with(admin, server, "~tally:*", "+@all", f"-{command}") as redis:
            with suppress(MissingPermissionError):
                await erase(redis)
            await permit(admin, f"+{command}")
            await erase(redis)

        assert await Audit(admin, KEYS).channels([CHANNEL]) == []
    counts = await admin.hgetall(KEYS.counts(CHANNEL, MESSAGE))
    assert counts == {"reaction:👍": "1", "reaction:🔥": "1"}
    assert await mentions(admin, "ana") == set()


async def erase(redis: Redis) -> None:
    """Delete what is kept of ana, once."""
    data, erasure = UserData(redis, KEYS, ["ana"]), UserErasure(redis, KEYS, 86_400)
    async for traces in data.traces():
        await erasure.erase(traces)
    async for channel, entries in data.entries():
        await erasure.delete_entries(channel, entries)


async def test_an_erasure_needs_no_memory_of_a_full_redis(admin: Any) -> None:
    """Somebody may be forgotten while Redis takes no other write."""
    await Store(admin, KEYS).apply_all([(CHANNEL, [added(1), added(1, BEN)])], Origin.LIVE)
    await admin.config_set("maxmemory", 1)
    try:
        await erase(admin)
    finally:
        await admin.config_set("maxmemory", 0)
    assert await admin.hgetall(KEYS.counts(CHANNEL, MESSAGE)) == {"reaction:👍": "1"}


async def test_a_sweep_frees_memory_of_a_full_redis(admin: Any) -> None:
    """Though it journals first what it deletes."""
    old = from_seconds(time.time() - 200)
    event = Added(Identity(CHANNEL, old, "reaction", "👍", "ana"), old, old)
    await Store(admin, KEYS).apply_all([(CHANNEL, [event])], Origin.LIVE)
    await admin.config_set("maxmemory", 1)
    try:
        assert await Store(admin, KEYS, Ttls(retention_seconds=100)).sweep(CHANNEL) == 1
    finally:
        await admin.config_set("maxmemory", 0)


async def test_a_lost_entry_is_not_explained_away(admin: Any) -> None:
    """Counts without an entry, and counts that differ from the last entry: more has happened."""
    store = Store(admin, KEYS)
    await store.apply_all([(CHANNEL, [added(1), added(1, ANA)])], Origin.LIVE)
    assert (await explain(admin)).is_whole

    await admin.hincrby(KEYS.counts(CHANNEL, MESSAGE), "reaction:👍", 1)
    differing = await explain(admin)
    await admin.delete(KEYS.journal(CHANNEL), KEYS.head(CHANNEL))
    without = await explain(admin)

    assert (differing.is_whole, differing.ends_well) == (False, False)
    assert (without.is_whole, without.changes) == (False, ())


async def explain(redis: Redis) -> Any:
    """Return the explanation of the message."""
    present = await read_snapshot(redis, KEYS, CHANNEL, MESSAGE)
    return await trace(Journal(redis, KEYS), CHANNEL, MESSAGE, present)
