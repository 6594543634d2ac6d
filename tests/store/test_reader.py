"""TallyReader: plain mappings, one round trip, nothing written."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest
from redis.asyncio import Redis

from tests.histories import CHANNEL, MESSAGE, added
from tests.redis_server import Forwarder, RedisServer, free_port
from tests.source.passing_time import passing_time
from tests.store.examples import apply
from worker import TallyReader
from worker.domain.action import Identity
from worker.errors import ConfigurationError, RedisUnavailableError
from worker.store.keys import Keys
from worker.store.store import Store

HOSTILE = Identity(CHANNEL, "1234567890", "re:act%3A{}", "a:b\n{c}%\0", "ü:1")


class SilentServer:
    """A server that reads, and never answers."""

    def __init__(self) -> None:
        self.url = ""
        self.is_asked = asyncio.Event()

    async def listen(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Read until the client has gone."""
        with contextlib.suppress(ConnectionError):
            while await reader.read(4096):
                self.is_asked.set()
        writer.close()


@pytest.fixture
async def silent() -> AsyncIterator[SilentServer]:
    """Start a server that never answers."""
    silent = SilentServer()
    async with await asyncio.start_server(silent.listen, "127.0.0.1", 0) as server:
        silent.url = f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        yield silent


async def test_tallies_are_read_as_they_were_written(redis: Redis) -> None:
    """A timetoken may be text or a number."""
    await apply(Store(redis, Keys()), [added(1), added(1, HOSTILE)])
    reader = TallyReader(redis)

    assert await reader.get(CHANNEL, MESSAGE) == {"reaction": {"👍": 1}}
    assert await reader.get(CHANNEL, int(MESSAGE)) == {"reaction": {"👍": 1}}
    assert await reader.get(CHANNEL, 1234567890) == {"re:act%3A{}": {"a:b\n{c}%\0": 1}}
    assert await reader.get("elsewhere", MESSAGE) == {}


async def test_many_messages_cost_one_round_trip(valkey: RedisServer, real_redis: Redis) -> None:
    """The keys of the answer are the timetokens as given. Nothing is written."""
    await apply(Store(real_redis, Keys()), [added(1), added(1, HOSTILE)])
    before = await real_redis.dbsize()
    await real_redis.config_resetstat()

    async with TallyReader.from_url(valkey.url, namespace="tally") as reader:
        many = await reader.get_many(CHANNEL, [int(MESSAGE), 1234567890, 5])
        assert await reader.get_many(CHANNEL, [MESSAGE]) == {MESSAGE: {"reaction": {"👍": 1}}}
        assert await reader.get_many(CHANNEL, list[str]()) == {}

    assert many == {
        int(MESSAGE): {"reaction": {"👍": 1}},
        1234567890: {"re:act%3A{}": {"a:b\n{c}%\0": 1}},
        5: {},
    }
    assert await real_redis.dbsize() == before
    stats = await real_redis.info("commandstats")
    assert stats["cmdstat_hgetall"]["calls"] == 4


async def test_a_reader_of_another_namespace_sees_nothing(redis: Redis) -> None:
    """Its tallies are apart from ours."""
    await apply(Store(redis, Keys()), [added(1)])

    assert await TallyReader(redis, "other").get(CHANNEL, MESSAGE) == {}


@pytest.mark.parametrize("timetoken", [True, 1.5, None])
async def test_a_malformed_timetoken_is_refused(redis: Redis, timetoken: object) -> None:
    """A float, for example, has lost its last digits."""
    with pytest.raises(TypeError, match="message timetoken"):
        await TallyReader(redis).get(CHANNEL, cast("Any", timetoken))


async def test_a_reader_says_that_redis_is_away() -> None:
    """It raises an error of ours, not of redis-py."""
    async with TallyReader.from_url(f"redis://127.0.0.1:{free_port()}") as reader:
        with pytest.raises(RedisUnavailableError, match="does not answer"):
            await reader.get(CHANNEL, MESSAGE)


async def test_a_reader_gives_up_on_a_silent_redis(
    silent: SilentServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The address gives the time, for all tries together."""
    passes = passing_time(monkeypatch)
    async with TallyReader.from_url(f"{silent.url}?socket_timeout=1000") as reader:
        for read in (reader.get(CHANNEL, MESSAGE), reader.get_many(CHANNEL, [MESSAGE])):
            silent.is_asked.clear()
            reading = asyncio.ensure_future(read)
            await silent.is_asked.wait()
            passes(900)
            assert await asyncio.wait({reading}, timeout=0.01) == (set(), {reading})
            passes(100)
            with pytest.raises(RedisUnavailableError, match="does not answer"):
                await reading


async def test_a_read_that_is_cancelled_ends(silent: SilentServer) -> None:
    """An ``asyncio.timeout`` around it works, too."""
    async with TallyReader.from_url(f"{silent.url}?socket_timeout=3600") as reader:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await reader.get_many(CHANNEL, [MESSAGE])


async def test_a_late_answer_spoils_no_later_read(valkey: RedisServer, real_redis: Redis) -> None:
    """The connection of a read that was given up is closed."""
    await apply(Store(real_redis, Keys()), [added(1)])
    async with (
        Forwarder(valkey.port) as door,
        TallyReader.from_url(f"{door.url}?socket_timeout=60") as reader,
    ):
        hasty = TallyReader(reader._redis, seconds=0.01)
        assert await reader.get(CHANNEL, MESSAGE) == {"reaction": {"👍": 1}}
        door.hold_answers()
        with pytest.raises(RedisUnavailableError, match="does not answer"):
            await hasty.get_many(CHANNEL, ["5"])
        door.let_answers_through()
        assert await reader.get_many(CHANNEL, [MESSAGE]) == {MESSAGE: {"reaction": {"👍": 1}}}


@pytest.mark.parametrize(
    "url", ["localhost:6379", "http://localhost", "", "redis://localhost:port"]
)
def test_an_address_of_no_known_kind_is_refused(url: str) -> None:
    """The error names the setting."""
    with pytest.raises(ConfigurationError, match="REDIS_URL"):
        TallyReader.from_url(url)
