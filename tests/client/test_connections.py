"""How readers are used: by many at once, in threads, forks and one event loop after another."""

import asyncio
import contextlib
import gc
import subprocess
import sys
import threading
import warnings
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import pytest
import redis as synchronous
from redis.asyncio import Redis

from reaction_tally import (
    AsyncTallyReader,
    InvalidNameError,
    NotPermittedError,
    NotTheseTalliesError,
    RedisUnavailableError,
    TallyReader,
)
from reaction_tally.keys import Keys
from tests.claimed import claim
from tests.histories import CHANNEL, MESSAGE, added
from tests.redis_server import Forwarder, RedisServer, free_port
from tests.store.examples import apply
from tests.waiting import wait_until
from worker.store.store import Store

TALLIES = {"reaction": {"👍": 1}}
AT_ONCE = 400
"""Reads of a web application at a busy moment: far more than connections."""
Read = Callable[[], Any]


@pytest.fixture
async def counted(claimed: Redis) -> Redis:
    """A namespace with one reaction."""
    await apply(Store(claimed, Keys()), [added(1)])
    return claimed


async def test_any_number_of_reads_run_at_once(counted: Redis, valkey: RedisServer) -> None:
    """They wait for a connection."""
    async with AsyncTallyReader.from_url(valkey.url) as reader:
        reads = [reader.page(CHANNEL, [MESSAGE]) for _ in range(AT_ONCE)]
        pages = await asyncio.gather(*reads)

    assert [page.messages[MESSAGE].counts for page in pages] == [TALLIES] * AT_ONCE


async def test_any_number_of_threads_read_at_once(counted: Redis, valkey: RedisServer) -> None:
    """Over one reader."""

    def read_all() -> list[Any]:
        with TallyReader.from_url(valkey.url) as reader, ThreadPoolExecutor(AT_ONCE) as threads:
            reads = [threads.submit(reader.get, CHANNEL, MESSAGE) for _ in range(AT_ONCE)]
            return [read.result() for read in reads]

    assert await asyncio.to_thread(read_all) == [TALLIES] * AT_ONCE


async def test_a_reader_serves_one_event_loop_after_another(
    counted: Redis, valkey: RedisServer
) -> None:
    """As at the top of a module, under ``asyncio.run``. A loop that ends closes its connections."""
    reader = AsyncTallyReader.from_url(valkey.url)

    def read_in_loops() -> list[Any]:
        return [asyncio.run(reader.get(CHANNEL, MESSAGE)) for _ in range(3)]

    before = len(await cast("Any", counted).client_list())
    assert await asyncio.to_thread(read_in_loops) == [TALLIES] * 3
    assert await reader.get(CHANNEL, MESSAGE) == TALLIES
    await reader.close()

    async def is_closed() -> bool:
        return len(await cast("Any", counted).client_list()) <= before

    await wait_until(is_closed)
    assert await reader.get(CHANNEL, MESSAGE) == TALLIES
    await reader.close()


async def test_a_loop_that_is_closed_at_once_leaves_nothing(
    counted: Redis, valkey: RedisServer
) -> None:
    """It ended no generator, so the next loop ends its connections."""
    reader = AsyncTallyReader.from_url(valkey.url)
    before = len(await cast("Any", counted).client_list())

    def read_in_loops() -> None:
        for _ in range(20):
            loop = asyncio.new_event_loop()
            loop.run_until_complete(reader.get(CHANNEL, MESSAGE))
            loop.close()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        await asyncio.to_thread(read_in_loops)
        assert await reader.get(CHANNEL, MESSAGE) == TALLIES
        await reader.close()
        gc.collect()

    async def are_closed() -> bool:
        return len(await cast("Any", counted).client_list()) <= before

    await wait_until(are_closed)


async def test_who_waits_for_a_connection_is_not_late(silent: "SilentServer") -> None:
    """The time of the address is for the answer. Each of four waits for the one before."""
    url = f"{silent.url}?socket_timeout=0.1&max_connections=1"
    async with AsyncTallyReader.from_url(url) as reader:
        began = asyncio.get_running_loop().time()
        reads = [reader.get(CHANNEL, MESSAGE) for _ in range(4)]
        results = await asyncio.gather(*reads, return_exceptions=True)
        seconds = asyncio.get_running_loop().time() - began

    assert [type(result) for result in results] == [RedisUnavailableError] * 4
    assert seconds >= 0.4


async def test_a_cancelled_read_wakes_the_next_one(counted: Redis, valkey: RedisServer) -> None:
    """Wherever it waits."""
    url = f"{valkey.url}?max_connections=1"
    async with AsyncTallyReader.from_url(url) as reader:
        for steps in range(30):
            first, second, third = (
                asyncio.create_task(reader.get(CHANNEL, MESSAGE)) for _ in range(3)
            )
            for _ in range(steps):
                await asyncio.sleep(0)
            second.cancel()
            results = await asyncio.gather(first, third)
            assert list(results) == [TALLIES] * 2


async def test_event_loops_of_several_threads_share_a_reader(
    counted: Redis, valkey: RedisServer
) -> None:
    """Each loop has its own connections."""
    reader = AsyncTallyReader.from_url(valkey.url)
    together = threading.Barrier(4)

    async def read() -> Any:
        tallies = await reader.get(CHANNEL, MESSAGE)
        await asyncio.to_thread(together.wait)
        return tallies, await reader.get(CHANNEL, MESSAGE)

    runs = [asyncio.to_thread(asyncio.run, read()) for _ in range(4)]
    assert await asyncio.gather(*runs) == [(TALLIES, TALLIES)] * 4


async def test_a_reader_works_after_a_fork(counted: Redis, valkey: RedisServer) -> None:
    """As in a Celery worker: the child opens connections of its own."""
    program = """
import os, sys
from reaction_tally import TallyReader
reader = TallyReader.from_url(sys.argv[1])
expected = reader.get(sys.argv[2], sys.argv[3])
child = os.fork()
for _ in range(50):
    if reader.get(sys.argv[2], sys.argv[3]) != expected:
        os._exit(1)
if child == 0:
    os._exit(0)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), expected)
"""
    command = [sys.executable, "-c", program, valkey.url, CHANNEL, MESSAGE]
    child = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    said, _ = await child.communicate()

    assert said.decode().strip() == f"0 {TALLIES}"


@pytest.mark.parametrize("decode_responses", [False, True])
async def test_a_client_that_exists_already_is_used(
    counted: Redis, valkey: RedisServer, decode_responses: bool
) -> None:
    """Whether it decodes responses or not. Who made it closes it."""
    options: dict[str, Any] = {"decode_responses": decode_responses}
    async with Redis.from_url(valkey.url, **options) as client:
        async with AsyncTallyReader(client) as reader:
            page = await reader.page(CHANNEL, [MESSAGE], me="ana", names=1)
            recent = await reader.recent(CHANNEL)
        assert await client.ping()
    assert page.messages[MESSAGE].reactions[0].names == ("ana",)
    assert [each.timetoken for each in recent] == [MESSAGE]

    with synchronous.Redis.from_url(valkey.url, **options) as blocking:
        with TallyReader(blocking) as reader_of_threads:
            assert reader_of_threads.page(CHANNEL, [MESSAGE], me="ana", names=1) == page
            assert reader_of_threads.recent(CHANNEL) == recent
            assert reader_of_threads.get(CHANNEL, MESSAGE) == TALLIES
        assert blocking.ping()


async def test_an_empty_answer_is_no_mistake_in_the_address(
    counted: Redis, valkey: RedisServer
) -> None:
    """Another namespace, database or server: each read raises, and ``check`` does."""
    await claim(counted, "others")
    with RedisServer() as other:
        for url, namespace in (
            (f"{valkey.url}/1", "tally"),
            (valkey.url, "no"),
            (other.url, "tally"),
        ):
            async with AsyncTallyReader.from_url(url, namespace=namespace) as reader:
                for read in reads_of(reader):
                    with pytest.raises(NotTheseTalliesError, match=f"{namespace}:meta is missing"):
                        await read()
    async with AsyncTallyReader.from_url(valkey.url, namespace="others") as empty:
        assert await empty.get(CHANNEL, MESSAGE) == {}
        await empty.check()


def reads_of(reader: AsyncTallyReader) -> list[Read]:
    """Return every read of a reader."""
    return [
        reader.check,
        reader.channels,
        lambda: reader.get(CHANNEL, MESSAGE),
        lambda: reader.get_many(CHANNEL, [MESSAGE]),
        lambda: reader.page(CHANNEL, [MESSAGE]),
        lambda: reader.recent(CHANNEL),
        lambda: reader.in_doubt([CHANNEL]),
        reader.heartbeat_age,
    ]


async def test_another_schema_is_refused(claimed: Redis, reader: Any) -> None:
    """The error says what to do. A key of another type is no schema."""
    await cast("Any", claimed).hset(Keys().meta, "schema", "2")
    with pytest.raises(NotTheseTalliesError, match=r"schema 2.*Update reaction-tally"):
        await reader.page(CHANNEL, [MESSAGE])

    await cast("Any", claimed).delete(Keys().meta)
    await cast("Any", claimed).set(Keys().meta, "not ours")
    with pytest.raises(NotTheseTalliesError, match="holds no tallies"):
        await reader.check()


async def test_a_user_who_may_only_read_reads_everything(
    counted: Redis, valkey: RedisServer
) -> None:
    """A user without a needed command, or with a wrong password, is told so."""
    read_only = ("+@read", "+multi", "+exec")
    for user, rules in (("reads", read_only), ("nobody", ("+ping",))):
        await cast("Any", counted).execute_command(
            "ACL", "SETUSER", user, "reset", "on", ">secret", "~tally:*", *rules
        )
    address = valkey.url.replace("redis://", "redis://{}:{}@")
    async with AsyncTallyReader.from_url(address.format("reads", "secret")) as reader:
        page = await reader.page(CHANNEL, [MESSAGE], me="ana", names=1)
        assert page.messages[MESSAGE].counts == await reader.get(CHANNEL, MESSAGE) == TALLIES
        await asyncio.gather(*[read() for read in reads_of(reader)])
    async with AsyncTallyReader.from_url(address.format("nobody", "secret")) as reader:
        with pytest.raises(NotPermittedError, match="hget"):
            await reader.get(CHANNEL, MESSAGE)
    async with AsyncTallyReader.from_url(address.format("reads", "wrong")) as reader:
        with pytest.raises(NotPermittedError, match="user or the password"):
            await reader.get(CHANNEL, MESSAGE)
    await cast("Any", counted).execute_command("ACL", "DELUSER", "reads", "nobody")


async def test_a_user_of_an_older_version_is_told_what_to_grant(
    counted: Redis, valkey: RedisServer
) -> None:
    """All its other reads work."""
    keys = ("~tally:{*}:*", "~tally:channels", "~tally:meta")
    await cast("Any", counted).execute_command(
        "ACL", "SETUSER", "older", "reset", "on", ">secret", *keys, "+@read"
    )
    url = valkey.url.replace("redis://", "redis://older:secret@")
    async with AsyncTallyReader.from_url(url) as reader:
        assert await reader.get(CHANNEL, MESSAGE) == TALLIES
        with pytest.raises(NotPermittedError, match=r"Grant ~tally:subscriptions and \+pttl"):
            await reader.heartbeat_age()
    await cast("Any", counted).execute_command("ACL", "DELUSER", "older")


class SilentServer:
    """A server that reads, and never answers."""

    def __init__(self) -> None:
        self.url = ""

    async def listen(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Read until the client has gone."""
        with contextlib.suppress(ConnectionError):
            while await reader.read(4096):
                pass
        writer.close()


@pytest.fixture
async def silent() -> AsyncIterator[SilentServer]:
    """Start a server that never answers."""
    silent = SilentServer()
    async with await asyncio.start_server(silent.listen, "127.0.0.1", 0) as server:
        silent.url = f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        yield silent


async def test_a_reader_says_that_redis_is_away() -> None:
    """It raises an error of ours, not of redis-py."""
    url = f"redis://127.0.0.1:{free_port()}"
    async with AsyncTallyReader.from_url(url) as reader:
        with pytest.raises(RedisUnavailableError, match="does not answer"):
            await reader.get(CHANNEL, MESSAGE)
    with (
        TallyReader.from_url(url) as blocking,
        pytest.raises(RedisUnavailableError, match="does not answer"),
    ):
        blocking.get(CHANNEL, MESSAGE)


async def test_a_reader_gives_up_on_a_silent_redis(silent: SilentServer) -> None:
    """The address gives the time."""
    url = f"{silent.url}?socket_timeout=0.05"
    async with AsyncTallyReader.from_url(url) as reader:
        for read in reads_of(reader):
            with pytest.raises(RedisUnavailableError, match="does not answer"):
                await read()

    def read_in_a_thread() -> None:
        with TallyReader.from_url(url) as blocking:
            blocking.page(CHANNEL, [MESSAGE])

    with pytest.raises(RedisUnavailableError, match="does not answer"):
        await asyncio.to_thread(read_in_a_thread)


async def test_a_read_that_is_cancelled_ends(silent: SilentServer) -> None:
    """An ``asyncio.timeout`` around it works, too."""
    async with AsyncTallyReader.from_url(f"{silent.url}?socket_timeout=3600") as reader:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await reader.get_many(CHANNEL, [MESSAGE])


async def test_a_late_answer_spoils_no_later_read(counted: Redis, valkey: RedisServer) -> None:
    """The connection of a read that was given up is closed."""
    async with (
        Forwarder(valkey.port) as door,
        AsyncTallyReader.from_url(f"{door.url}?max_connections=1") as reader,
    ):
        assert await reader.get(CHANNEL, MESSAGE) == TALLIES
        door.hold_requests()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await reader.get_many(CHANNEL, ["5"])
        door.let_requests_through()
        assert await reader.get_many(CHANNEL, [MESSAGE]) == {MESSAGE: TALLIES}


async def test_a_connection_that_was_cut_is_opened_again(
    counted: Redis, valkey: RedisServer, reader: Any
) -> None:
    """The read that finds it cut is repeated."""
    assert await reader.get(CHANNEL, MESSAGE) == TALLIES
    await cast("Any", counted).client_kill_filter(_type="normal", skipme=True)

    assert await reader.get(CHANNEL, MESSAGE) == TALLIES


@pytest.mark.parametrize("kind", [TallyReader, AsyncTallyReader])
@pytest.mark.parametrize(
    "url",
    ["localhost:6379", "http://localhost", "", "redis://localhost:port", "redis://h?no_option=1"],
)
def test_an_address_of_no_known_kind_is_refused(kind: Any, url: str) -> None:
    """The error quotes nothing: an address may hold a password."""
    with pytest.raises(InvalidNameError, match="address of Redis"):
        kind.from_url(url)


@pytest.mark.parametrize("kind", [TallyReader, AsyncTallyReader])
def test_a_malformed_namespace_is_refused(kind: Any) -> None:
    """It is a mistake of the program, so it is a ValueError, too."""
    with pytest.raises(ValueError, match="namespace is 'a b'"):
        kind.from_url("redis://localhost", namespace="a b")


def test_the_client_needs_redis_alone() -> None:
    """It loads nothing that only the worker needs; redis-py loads what it finds for TLS."""
    program = (
        "import sys; import reaction_tally; "
        "print(*{name.partition('.')[0] for name in sys.modules} - sys.stdlib_module_names)"
    )
    command = [sys.executable, "-I", "-c", program]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout

    needless = {"worker", "aiohttp", "httpx", "msgspec", "pubnub", "pydantic", "structlog"}
    assert needless & set(said.split()) == set()
