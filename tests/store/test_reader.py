"""Reading: plain mappings, one round trip, nothing written."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest
from redis.asyncio import Redis

from tests.histories import CHANNEL, MESSAGE, added
from tests.redis_server import Forwarder, RedisServer, free_port
from tests.source.passing_time import passing_time
from worker import TallyReader
from worker.domain.action import Identity, Origin
from worker.errors import ConfigurationError, RedisUnavailableError
from worker.store.keys import Keys
from worker.store.store import Store

HOSTILE = Identity(CHANNEL, "1234567890", "re:act%3A{}", "a:b\n{c}%\0", "ü:1")


class Silent:
    """Somebody who listens, and never says a word."""

    def __init__(self) -> None:
        self.url = ""
        self.is_asked = asyncio.Event()

    async def listen(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Hear whoever comes to the end."""
        try:
            while await reader.read(4096):
                self.is_asked.set()
        except ConnectionError:
            pass  # whoever gave up has gone
        writer.close()


@pytest.fixture
async def silent() -> AsyncIterator[Silent]:
    """Let somebody listen who never says a word."""
    silent = Silent()
    async with await asyncio.start_server(silent.listen, "127.0.0.1", 0) as server:
        silent.url = f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        yield silent


async def test_tallies_are_read_as_they_were_written(redis: Redis) -> None:
    """Type, value and count; a timetoken as text or as a number."""
    await Store(redis, Keys()).apply(CHANNEL, [added(1), added(1, HOSTILE)], Origin.LIVE)
    reader = TallyReader(redis)

    assert await reader.get(CHANNEL, MESSAGE) == {"reaction": {"👍": 1}}
    assert await reader.get(CHANNEL, int(MESSAGE)) == {"reaction": {"👍": 1}}
    assert await reader.get(CHANNEL, 1234567890) == {"re:act%3A{}": {"a:b\n{c}%\0": 1}}
    assert await reader.get("elsewhere", MESSAGE) == {}


async def test_many_messages_cost_one_round_trip(valkey: RedisServer, real_redis: Redis) -> None:
    """The answer is keyed as the messages were asked for; nothing is written."""
    await Store(real_redis, Keys()).apply(CHANNEL, [added(1), added(1, HOSTILE)], Origin.LIVE)
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
    """Namespaces do not mix."""
    await Store(redis, Keys()).apply(CHANNEL, [added(1)], Origin.LIVE)

    assert await TallyReader(redis, "other").get(CHANNEL, MESSAGE) == {}


@pytest.mark.parametrize("timetoken", [True, 1.5, None])
async def test_a_timetoken_that_is_none_is_refused(redis: Redis, timetoken: object) -> None:
    """A float has lost its last digits already."""
    with pytest.raises(TypeError, match="message timetoken"):
        await TallyReader(redis).get(CHANNEL, cast("Any", timetoken))


async def test_a_reader_says_that_redis_is_away() -> None:
    """One of our errors, whatever the library raised."""
    async with TallyReader.from_url(f"redis://127.0.0.1:{free_port()}") as reader:
        with pytest.raises(RedisUnavailableError, match="does not answer"):
            await reader.get(CHANNEL, MESSAGE)


async def test_a_reader_gives_up_on_a_redis_that_says_nothing(
    silent: Silent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the time its address gives it, all tries together; one of our errors again."""
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


async def test_a_read_that_is_cancelled_ends(silent: Silent) -> None:
    """Its own limit does not swallow another's, as ``asyncio.timeout`` around it is."""
    async with TallyReader.from_url(f"{silent.url}?socket_timeout=3600") as reader:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await reader.get_many(CHANNEL, [MESSAGE])


async def test_a_read_that_was_given_up_spoils_no_later_one(
    valkey: RedisServer, real_redis: Redis
) -> None:
    """Answers that come after it was given up are nobody's: the next read has its own."""
    await Store(real_redis, Keys()).apply(CHANNEL, [added(1)], Origin.LIVE)
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
    """The sentence names the setting."""
    with pytest.raises(ConfigurationError, match="REDIS_URL"):
        TallyReader.from_url(url)
