"""The examples of the contract, in several languages: each one reads and follows the same."""

import asyncio
import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, cast

import pytest
from msgspec.structs import replace
from redis.asyncio import Redis

from reaction_tally.keys import RANKED_ABOVE, Keys
from reaction_tally.testing.writer import next_id
from tests.client.node import MODULES, NODE, needs_node
from tests.client.reactions import crowd, who_key
from tests.client.reactions import write as write_reactions
from tests.histories import ANA, BEN, CHANNEL, MESSAGE, added, at, removed
from tests.redis_server import RedisServer
from tests.store.examples import apply
from tests.waiting import WAIT_SECONDS
from worker.domain.action import Event, Identity
from worker.store.store import Store

ROOT: Final = Path(__file__).parents[2]
EXAMPLES: Final = ROOT / "client/examples"
KEYS: Final = Keys()
ROOM: Final = "a{b}%"
HOSTILE: Final = Identity(ROOM, MESSAGE, "re:act%ion", "a:b%3A{c} d", "ben")
TYPE, VALUE = HOSTILE.type, HOSTILE.value
CLEO: Final = replace(HOSTILE, type="reaction", value="👍", uuid="u: 1")

COMMANDS: Final = {
    "python": [sys.executable, str(EXAMPLES / "read.py")],
    "node": [str(NODE), str(EXAMPLES / "read.cjs")],
}


LANGUAGES: Final = ["python", pytest.param("node", marks=needs_node)]


class Example:
    """An example that runs."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def prints(self) -> Any:
        """Return the next line."""
        assert self._process.stdout
        async with asyncio.timeout(WAIT_SECONDS):
            line = await self._process.stdout.readline()
        return json.loads(line)


@asynccontextmanager
async def running(language: str, *words: str) -> AsyncIterator[Example]:
    """Run an example while the block runs."""
    process = await asyncio.create_subprocess_exec(
        *(*COMMANDS[language], *words),
        env={**os.environ, "NODE_PATH": str(MODULES)},
        stdout=subprocess.PIPE,
    )
    yield Example(process)
    process.kill()
    await process.communicate()


@pytest.fixture(params=LANGUAGES)
async def example(
    request: pytest.FixtureRequest, claimed: Redis, valkey: RedisServer
) -> AsyncIterator[Example]:
    """An example in each language, which reads two messages for ben."""
    await write(claimed, added(1, HOSTILE), added(2, CLEO), added(0, replace(CLEO, uuid="ben")))
    async with running(request.param, valkey.url, ROOM, "ben", MESSAGE, "5") as example:
        yield example


async def write(redis: Redis, *events: Event) -> None:
    """Let a worker count events in the room."""
    await apply(Store(redis, KEYS), events, channel=ROOM)


async def write_entry(redis: Redis, change: str, *, after: str | None = None) -> str:
    """Write an entry of the journal at once, as a script does; return its id."""
    client = cast("Any", redis)
    head = await client.get(KEYS.head(ROOM))
    new = next_id(head)
    entry = {"after": after or head, "origin": "sweep", "0": change}
    pipe = client.pipeline(transaction=True)
    pipe.xadd(KEYS.journal(ROOM), entry, id=new)
    pipe.set(KEYS.head(ROOM), new)
    await pipe.execute()
    return new


@pytest.mark.processes
async def test_an_example_reads_a_page_and_follows_it(claimed: Redis, example: Example) -> None:
    """Whatever the text; a new page comes when an entry is missing."""
    head = await cast("Any", claimed).get(KEYS.head(ROOM))
    counts = {TYPE: {VALUE: 1}, "reaction": {"👍": 2}}
    assert await example.prints() == {
        "position": head,
        "in_doubt": False,
        "counts": {MESSAGE: counts, "5": {}},
    }
    thumb, odd = {"type": "reaction", "value": "👍"}, {"type": TYPE, "value": VALUE}
    mine = (await example.prints())["mine"]
    assert sorted(mine, key=str) == sorted([{**thumb, "at": at(0)}, {**odd, "at": at(1)}], key=str)
    who = [await example.prints(), await example.prints()]
    assert sorted(who, key=str) == sorted(
        [
            {**thumb, "who": [{"user": "ben", "at": at(0)}, {"user": "u: 1", "at": at(2)}]},
            {**odd, "who": [{"user": "ben", "at": at(1)}]},
        ],
        key=str,
    )

    await write(claimed, removed(1, HOSTILE), added(5, replace(CLEO, message_timetoken="5")))
    changes = [await example.prints(), await example.prints()]
    assert sorted(changes, key=str) == sorted(
        [
            {"message": MESSAGE, **odd, "count": 0},
            {"message": "5", **thumb, "count": 1},
        ],
        key=str,
    )
    await write_entry(claimed, f"expired applied {MESSAGE} 0 {MESSAGE} ")
    assert await example.prints() == {"message": MESSAGE, "expired": True}

    await cast("Any", claimed).hset(KEYS.owed(ROOM), "overflow", "1")
    head = await write_entry(claimed, "added applied 7 1 7 t:v:u", after="7-7")
    assert await example.prints() == {
        "position": head,
        "in_doubt": True,
        "counts": {MESSAGE: {"reaction": {"👍": 2}}, "5": {"reaction": {"👍": 1}}},
    }


@pytest.mark.processes
@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("left", [0, RANKED_ABOVE])
async def test_an_example_reads_who_chose_a_value_of_a_large_message(
    claimed: Redis, valkey: RedisServer, language: str, left: int
) -> None:
    """From its sorted sets, or from all actions while these are not complete."""
    tallies = [("reaction", "👍"), (TYPE, VALUE)]
    reactions = crowd(2 * RANKED_ABOVE + 2, *tallies)
    await write_reactions(claimed, reactions)
    await cast("Any", claimed).zremrangebyrank(who_key(tallies[0]), left, -1)

    async with running(language, valkey.url, CHANNEL, "ben", MESSAGE) as example:
        for _ in ("page", "mine"):
            await example.prints()
        lines = [await example.prints() for _ in tallies]

    for line in lines:
        users = reactions.who((line["type"], line["value"]))[:100]
        assert line["who"] == [{"user": each.user, "at": each.at} for each in users]
    assert {(line["type"], line["value"]) for line in lines} == set(tallies)


@pytest.mark.processes
async def test_an_example_says_that_there_are_no_tallies(
    claimed: Redis, valkey: RedisServer
) -> None:
    """In another database, for example: an empty page would be a lie."""
    words = (*COMMANDS["python"], f"{valkey.url}/9", ROOM, "ben", MESSAGE)
    process = await asyncio.create_subprocess_exec(*words, stderr=subprocess.PIPE)
    async with asyncio.timeout(WAIT_SECONDS):
        _, error = await process.communicate()

    assert process.returncode == 1
    assert b"There are no tallies of schema 1 at" in error


def redis_cli_lines() -> list[list[str]]:
    """Return the commands for redis-cli, word by word."""
    lines = (EXAMPLES / "read.sh").read_text(encoding="utf-8").splitlines()
    written = [shlex.split(line, comments=True) for line in lines]
    return [words for words in written if words]


async def test_the_lines_for_redis_cli_are_commands(claimed: Redis) -> None:
    """Each is sent as redis-cli would send it, and finds something but ``owed`` and news."""
    await apply(Store(claimed, KEYS), [added(1, ANA), added(2, BEN)])
    redis = cast("Any", claimed)
    who = KEYS.who(CHANNEL, MESSAGE, "reaction:👍")
    await redis.zadd(who, {"ana": 7, "ben": 8})
    replies = {}
    for program, raw, *words in redis_cli_lines():
        assert (program, raw) == ("redis-cli", "--raw")
        replies[words[0]] = await redis.execute_command(*words)

    head = await redis.get(KEYS.head(CHANNEL))
    assert replies["HGET"] == at(2)
    assert replies["HGETALL"] == {"reaction:👍:ana": at(1), "reaction:👍:ben": at(2)}
    cursor, found = replies["HSCAN"]
    assert (int(cursor), found) == (0, replies["HGETALL"])
    assert [message for message, _ in replies["ZREVRANGE"]] == [MESSAGE]
    assert (replies["GET"], replies["EXISTS"]) == (head, 0)
    assert (replies["ZCARD"], replies["ZRANGE"]) == (2, [["ana", 7], ["ben", 8]])
    assert [entry_id for entry_id, _ in replies["XREVRANGE"]] == [head]
    assert not replies["XREAD"]


@pytest.mark.skipif(not shutil.which("gofmt"), reason="needs Go")
def test_the_example_in_go_is_go() -> None:
    """Its dependency is not here, so it is read, and not run."""
    command = [str(shutil.which("gofmt")), "-e", "-l", str(EXAMPLES / "read.go")]
    assert subprocess.run(command, capture_output=True, check=True).stdout == b""
