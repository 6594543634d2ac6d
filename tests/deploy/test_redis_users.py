"""Users of Redis: what ``deploy/redis-users.acl`` permits is enough, and no more."""

import asyncio
import re
import shutil
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import aclosing, suppress
from pathlib import Path
from typing import Any, Final, cast
from urllib.parse import urlsplit

import pytest
from redis import Redis as BlockingRedis
from redis.asyncio import Redis
from redis.exceptions import AuthenticationError, NoPermissionError, ResponseError

from reaction_tally import AsyncTallyReader, NotPermittedError, Reset, TallyReader
from tests.api.served import Served
from tests.client.followers import count_followers
from tests.redis_server import RedisServer
from tests.waiting import wait_until
from tests.worlds import MESSAGE, ROOM, World, open_world
from worker.errors import ExitCode
from worker.store.connection import connect
from worker.store.preflight import COMMANDS

FILE: Final = Path(__file__).parents[2] / "deploy" / "redis-users.acl"
WORKER: Final = "tally"
READER: Final = "tally-reader"
READS: Final = (
    ("show", ROOM, MESSAGE, "--names", "3"),
    ("explain", ROOM, MESSAGE),
    ("top",),
    ("top", ROOM),
    ("tail", "--exit-at-end"),
    ("channels",),
)
"""Commands that only read."""
OPERATOR: Final = "tally-operator"
USERS: Final = (WORKER, READER, OPERATOR)
SETTINGS: Final = {"TALLY_SETTLE_SECONDS": "0.3", "TALLY_LOG_FORMAT": "json"}

Command = tuple[str, ...]
FOREIGN: Final[list[Command]] = [
    ("GET", "other:key"),
    ("SET", "other:key", "x"),
    ("DEL", "other:key"),
    ("HGETALL", "tallyho:{room}:counts:1"),
    ("COPY", "tally:meta", "other:key"),
    ("PUBLISH", "other:changed", "x"),
    ("SUBSCRIBE", "other:changed"),
]
"""Another prefix, and another Pub/Sub channel."""
DANGEROUS: Final[list[Command]] = [
    ("FLUSHALL",),
    ("FLUSHDB",),
    ("KEYS", "*"),
    ("SWAPDB", "0", "1"),
    ("CONFIG", "SET", "maxmemory-policy", "allkeys-lru"),
    ("CLIENT", "PAUSE", "1"),
    ("CLIENT", "KILL", "TYPE", "normal"),
    ("ACL", "SETUSER", "tally", "+@all"),
    ("ACL", "LIST"),
    ("ACL", "GETUSER", "tally"),
    ("ACL", "LOG", "RESET"),
    ("CONFIG", "GET", "requirepass"),
    ("CONFIG", "GET", "masterauth"),
    ("CONFIG", "GET", "tls-key-file-pass"),
    ("CONFIG", "RESETSTAT"),
    ("MOVE", "tally:meta", "1"),
    ("RENAME", "tally:meta", "tally:other"),
    ("RENAMENX", "tally:meta", "tally:other"),
    ("COPY", "tally:meta", "tally:meta", "DB", "1"),
    ("EVAL", "return 1", "0"),
    ("SCRIPT", "FLUSH"),
    ("SLOWLOG", "RESET"),
    ("LATENCY", "RESET"),
    ("MONITOR",),
    ("FUNCTION", "FLUSH"),
    ("FUNCTION", "DELETE", "x"),
    ("REPLICAOF", "NO", "ONE"),
    ("SHUTDOWN", "NOSAVE"),
    ("MIGRATE", "127.0.0.1", "1", "tally:meta", "0", "1"),
]
"""What harms everybody on this server, or shows its secrets."""
TRUSTED: Final = ("+eval", "+evalsha")
"""What the client's README offers a reader that is trusted."""
OF_COMMANDS: Final = ("~tally:proven", "~tally:proven:full", "~tally:round")
"""What ``tally channels`` and ``tally board`` read besides: no program of the client needs it."""
ENDLESS: Final[Command] = ("EVAL", "while true do end", "0")
WRITING: Final[list[Command]] = [
    ("SET", "tally:meta", "x"),
    ("HSET", f"tally:{{{ROOM}}}:counts:{MESSAGE}", "reaction:👍", "99"),
    ("DEL", f"tally:{{{ROOM}}}:counts:{MESSAGE}"),
    ("EXPIRE", "tally:meta", "1"),
    ("XADD", f"tally:{{{ROOM}}}:journal", "*", "a", "b"),
    ("PUBLISH", "tally:changed", "room 1-0"),
    ("EVAL", "return redis.call('SET', KEYS[1], 'x')", "1", "tally:meta"),
    ("SORT", "tally:channels", "STORE", "tally:other"),
    ("GETEX", "tally:meta", "EX", "1"),
]
"""What changes a tally, or says that one has changed."""
OPERATING: Final[list[Command]] = [
    ("INFO", "memory"),
    ("CLIENT", "LIST"),
    ("ACL", "WHOAMI"),
    ("SCRIPT", "KILL"),
    ("SLOWLOG", "GET", "10"),
    ("LATENCY", "LATEST"),
    ("XREVRANGE", "tally:quarantine", "+", "-", "COUNT", "10"),
    ("XTRIM", "tally:quarantine", "MAXLEN", "0"),
    ("TYPE", "tally:meta"),
    ("OBJECT", "IDLETIME", "tally:meta"),
    ("DEL", f"tally:{{{ROOM}}}:counts:5"),
    ("DBSIZE",),
    ("PING",),
]
"""What the runbook tells an operator to type."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A server that reads our file at its start."""
    folder = tmp_path_factory.mktemp("users")
    shutil.copy(FILE, folder / "users.acl")
    with RedisServer(folder, aclfile=str(folder / "users.acl")) as server:
        yield server


@pytest.fixture
async def administrator(server: RedisServer) -> AsyncIterator[Redis]:
    """An administrator, who has let the users in, each with a password."""
    async with connect(server.url) as redis:
        await redis.flushall()
        for user in USERS:
            rules = (*rules_of(user), "on", f">{user}-pass")
            await cast("Any", redis).execute_command("ACL", "SETUSER", user, "reset", *rules)
        yield redis


def url_of(server: RedisServer, user: str) -> str:
    """Return the address with a user and the password."""
    return f"redis://{user}:{user}-pass@{urlsplit(server.url).netloc}"


@pytest.fixture
async def world(administrator: Redis, server: RedisServer, tmp_path: Path) -> AsyncIterator[World]:
    """A world whose commands are the worker's user."""
    async with open_world(server.url, tmp_path) as world:
        world.settings |= {"REDIS_URL": url_of(server, WORKER), **SETTINGS}
        yield world


def rules_of(user: str) -> list[str]:
    """Return what the file says of a user."""
    (rules,) = re.findall(rf"^user {user} (.*)$", FILE.read_text("utf-8"), re.MULTILINE)
    return str(rules).split()


async def is_refused(redis: Redis, command: Command) -> bool:
    """Tell whether an ACL refuses a command, also within a script."""
    try:
        await cast("Any", redis).execute_command(*command)
    except NoPermissionError:
        return True
    except Exception as error:
        return "ACL failure" in str(error) or "can't access" in str(error)
    return False


def test_the_administrator_keeps_the_password(tmp_path: Path) -> None:
    """With what ``ACL LIST`` says in the file, too. Without it, anybody is the administrator."""
    file = tmp_path / "users.acl"
    shutil.copy(FILE, file)
    with RedisServer(tmp_path, aclfile=str(file)) as server:
        with BlockingRedis.from_url(server.url, decode_responses=True) as redis:
            commands = cast("Any", redis)
            commands.execute_command("ACL", "SETUSER", "default", "resetpass", ">root-pass")
            users = commands.execute_command("ACL", "LIST")
            missing = [user for user in users if user.split()[1] not in USERS]
            file.write_text("\n".join([file.read_text("utf-8"), *missing]), encoding="utf-8")
            commands.execute_command("ACL", "LOAD")
        with (
            BlockingRedis.from_url(server.url) as stranger,
            pytest.raises(AuthenticationError),
        ):
            stranger.ping()
        with BlockingRedis.from_url(
            url_of(server, "default").replace("default-", "root-")
        ) as redis:
            assert redis.ping()
            shutil.copy(FILE, file)
            redis.execute_command("ACL", "LOAD")
        with BlockingRedis.from_url(server.url) as stranger:
            assert stranger.ping()


@pytest.mark.parametrize("user", USERS)
def test_nobody_can_log_in_before_a_password_is_set(user: str) -> None:
    """So the file has no secret, and no default that stays."""
    assert rules_of(user)[:2] == ["off", "resetpass"]


def test_the_worker_says_the_same_as_the_file() -> None:
    """It prints its own list if a permission is missing."""
    keys = ["resetkeys", "~tally:*", "resetchannels", "&tally:changed", "-@all"]
    assert rules_of(WORKER)[2:] == [*keys, *COMMANDS]


async def test_the_api_works_with_the_workers_user(world: World) -> None:
    """Also changes, which come by a subscription. Nothing is refused."""
    world.react()
    await world.redis.execute_command("ACL", "LOG", "RESET")
    async with world.run_worker(TALLY_API="on") as worker:
        await world.settles()
        (listens,) = worker.entries("http_listens")
        api = Served("127.0.0.1", listens["port"])
        events = await api.follow(ROOM)
        await wait_until(lambda: count_followers(world.redis))
        world.react("🎉", "ben")
        _, change = await events.next()
        events.leave()
        query = {"message": MESSAGE, "type": "reaction", "value": "👍"}
        routes = {"tallies": ["message"], "top": [], f"messages/{MESSAGE}/who": ["type", "value"]}
        answers = [
            await api.get(f"/v1/channels/{ROOM}/{route}", {name: query[name] for name in names})
            for route, names in routes.items()
        ]

    assert change["value"] == "🎉"
    assert [answer.status for answer in answers] == [200, 200, 200]
    assert await world.redis.execute_command("ACL", "LOG") == []


async def test_every_command_works_with_the_workers_user(world: World) -> None:
    """A worker that runs, and all commands around it."""
    world.add_past(130)  # so many have a ``who`` key
    world.react("🎉", "cleo", published=False)
    await world.redis.execute_command("ACL", "LOG", "RESET")
    settings = {"TALLY_RETENTION_DAYS": "3000"}
    async with world.run_worker(**settings) as worker:
        world.take_back(world.react("👍", "ana"))
        world.react("🎉", "ben")
        await world.settles()
        await wait_until(world.owes_nothing, what=lambda: worker.err)
    for command in (
        ("doctor",),
        ("backfill",),
        ("reconcile",),
        ("verify",),
        *READS,
        ("users", "export", "cleo"),
        ("users", "forget", "--yes", "cleo"),
        ("users", "forget", "--undo", "cleo"),
        ("forget", "--yes", ROOM),
    ):
        named = {"TALLY_CHANNELS": "hall"} if command[0] == "forget" else {}
        ended = await world.run_command(*command, **settings, **named)
        assert ended.code == ExitCode.DONE, ended
    assert "not permit" not in worker.err
    assert not await log_of(world.redis)


async def test_every_reading_command_works_with_the_readers_user(
    world: World, server: RedisServer
) -> None:
    """And Redis refuses it nothing."""
    world.add_past(130)
    async with world.run_worker():
        await world.settles()
        await world.redis.execute_command("ACL", "LOG", "RESET")
        for command in READS:
            ended = await world.run_command(*command, REDIS_URL=url_of(server, READER))
            assert ended.code == ExitCode.DONE, ended
    assert not await log_of(world.redis)


async def log_of(redis: Any) -> list[Any]:
    """Return what Redis has refused to anybody."""
    return list(await redis.execute_command("ACL", "LOG"))


@pytest.mark.parametrize("grants", [(), TRUSTED], ids=["by-the-file", "trusted"])
async def test_a_reader_has_every_read(
    world: World, server: RedisServer, grants: Sequence[str]
) -> None:
    """In Python, and changes as they come. Only the script of a page may be refused."""
    world.add_past(130)
    url = url_of(server, READER)
    await world.redis.execute_command("ACL", "SETUSER", READER, *grants)
    await world.redis.execute_command("ACL", "LOG", "RESET")
    async with world.run_worker(), AsyncTallyReader.from_url(url) as reader:
        await world.settles()
        await reader.check()
        page = await reader.page(ROOM, [MESSAGE], me="old-1", names=2)
        assert page.messages[MESSAGE].reactions[0].count == 130
        assert await reader.get(ROOM, MESSAGE) == {"reaction": {"👍": 130}}
        assert (await reader.who(ROOM, MESSAGE, "reaction", "👍", limit=5)).total == 130
        assert await reader.top(ROOM)
        assert await reader.recent(ROOM)
        assert await reader.channels() == {ROOM}
        await reader.in_doubt([ROOM])
        assert await reader.heartbeat_age() is not None
        async with aclosing(reader.changes([ROOM], since={ROOM: page.position})) as changes:
            world.react("🎉", "ben")
            change = await anext(changes)
            assert not isinstance(change, Reset)
            assert (change.value, change.count) == ("🎉", 1)
    refused = {entry["object"] for entry in await log_of(world.redis)}
    assert refused == (set() if grants else {"evalsha"})


async def test_a_reader_in_threads_has_them_too(administrator: Redis, server: RedisServer) -> None:
    """With another password it is told so."""
    await cast("Any", administrator).hset("tally:meta", "schema", "1")
    with TallyReader.from_url(url_of(server, READER)) as reader:
        assert reader.channels() == set()
    wrong = url_of(server, READER).replace("-pass", "-other")
    with TallyReader.from_url(wrong) as stranger, pytest.raises(NotPermittedError):
        stranger.channels()


@pytest.mark.parametrize("command", WRITING, ids=" ".join)
async def test_a_reader_cannot_write(
    administrator: Redis, server: RedisServer, command: Command
) -> None:
    """Neither by a script nor by a command that reads and writes."""
    async with connect(url_of(server, READER)) as reader:
        assert await is_refused(reader, command)
    assert not await administrator.dbsize()


@pytest.mark.parametrize(
    "command",
    [
        ("HGETALL", "tally:forgotten"),
        ("XRANGE", "tally:quarantine", "-", "+"),
        ("HGETALL", "tally:cursor:x"),
    ],
    ids=" ".join,
)
async def test_a_reader_sees_no_more_than_tallies(
    administrator: Redis, server: RedisServer, command: Command
) -> None:
    """Whoever reads who is forgotten may test whether a name is among them."""
    async with connect(url_of(server, READER)) as reader:
        assert await is_refused(reader, command)
    async with connect(url_of(server, WORKER)) as worker:
        assert not await is_refused(worker, command)


@pytest.mark.parametrize("user", USERS)
async def test_nobody_touches_another_prefix(
    administrator: Redis, server: RedisServer, user: str
) -> None:
    """Nor another Pub/Sub channel. No rule keeps SCAN from showing the names of all keys."""
    async with connect(url_of(server, user)) as redis:
        allowed = [command for command in FOREIGN if not await is_refused(redis, command)]
    assert not allowed


@pytest.mark.parametrize("user", USERS)
async def test_nobody_harms_the_server(
    administrator: Redis, server: RedisServer, user: str
) -> None:
    """That is left to its administrator."""
    async with connect(url_of(server, user)) as redis:
        allowed = [command for command in DANGEROUS if not await is_refused(redis, command)]
    assert not allowed


@pytest.mark.parametrize("user", [READER, OPERATOR])
async def test_only_the_worker_runs_scripts(
    administrator: Redis, server: RedisServer, user: str
) -> None:
    """A script may loop for ever. Nobody else is served then."""
    async with connect(url_of(server, user)) as redis:
        assert await is_refused(redis, ENDLESS)
        assert await is_refused(redis, ("EVALSHA", "0" * 40, "0"))


async def test_an_operator_stays_in_the_database(administrator: Redis, server: RedisServer) -> None:
    """Another one may hold the tallies of somebody else."""
    async with connect(url_of(server, OPERATOR)) as operator:
        assert await is_refused(operator, ("SELECT", "1"))


async def test_an_operator_ends_a_script_that_loops(
    administrator: Redis, server: RedisServer
) -> None:
    """A trusted reader's, for example. Then everybody is served again."""
    await cast("Any", administrator).config_set("lua-time-limit", "100")
    await cast("Any", administrator).execute_command("ACL", "SETUSER", READER, *TRUSTED)
    async with (
        connect(url_of(server, OPERATOR)) as operator,
        connect(url_of(server, READER)) as reader,
    ):
        await cast("Any", operator).ping()
        looping = asyncio.create_task(cast("Any", reader).execute_command(*ENDLESS))

        async def is_killed() -> bool:
            with suppress(ResponseError):  # NOTBUSY, until the script loops
                return bool(await cast("Any", operator).execute_command("SCRIPT", "KILL"))
            return False

        await wait_until(is_killed)
        with pytest.raises(ResponseError, match="killed"):
            await looping
        assert await cast("Any", administrator).ping()


async def test_an_operator_does_what_the_runbook_says(
    administrator: Redis, server: RedisServer
) -> None:
    """Looks at the server, and deletes damaged keys."""
    async with connect(url_of(server, OPERATOR)) as operator:
        refused = [command for command in OPERATING if await is_refused(operator, command)]
    assert not refused


def test_the_clients_readme_says_the_same_as_the_file() -> None:
    """Each rule that it names is the reader's, but for those of a reader that is trusted."""
    readme = (FILE.parents[1] / "client" / "README.md").read_text("utf-8")
    (item,) = re.findall(r"^- \*\*Permissions\.\*\*(.*?)^- ", readme, re.MULTILINE | re.DOTALL)
    (enough, hints) = re.findall(r"`([~&][^`]*)`", item)
    assert f"With `{' '.join(TRUSTED)}`, which the file leaves out" in item
    named = f"{enough} {hints}".split()
    resets = {"resetkeys", "resetchannels", "-@all"}
    assert {*named, *resets, *OF_COMMANDS} == set(rules_of(READER)[2:])
