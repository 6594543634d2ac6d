"""A namespace of another schema is refused by everything, which says what to do, and left alone."""

from collections.abc import AsyncIterator, Awaitable
from pathlib import Path
from typing import Any, Final

import pytest

from reaction_tally import AsyncTallyReader, NotTheseTalliesError
from tests.bench.in_process import Ended
from tests.redis_server import RedisServer
from tests.waiting import wait_until
from tests.worlds import KEY, MESSAGE, ROOM, World, open_world
from worker.errors import ExitCode, RedisUnfitError

LATER: Final = {"schema": "2", "subscribe_key": KEY}
NONE: Final = {"subscribe_key": KEY}
WRITE: Final = (
    ("backfill",),
    ("reconcile",),
    ("verify",),
    ("forget", "gone", "--yes"),
    ("users", "export", "ana"),
    ("users", "forget", "ana", "--yes"),
    ("users", "forget", "ana", "--undo"),
    ("board",),
    ("doctor",),
)
"""They refuse it with the worker's words."""
READ: Final = (
    ("show", ROOM, MESSAGE),
    ("explain", ROOM, MESSAGE),
    ("top",),
    ("tail",),
    ("channels",),
)
"""They refuse it with the client's words."""
WORKER_SAYS: Final = {
    "2": (
        "The namespace tally holds schema 2; this worker writes schema 1.",
        (
            "Nothing was changed. Install the version of the worker that wrote it, "
            "restore the copy of Redis from before that version, "
            "or set TALLY_NAMESPACE to a new name and backfill."
        ),
    ),
    "": (
        "The key tally:meta has no field schema",
        (
            "Set TALLY_NAMESPACE to a name that nobody else uses and backfill, "
            "or restore a copy of Redis."
        ),
    ),
}
CLIENT_SAYS: Final = {
    "2": (
        "have schema 2, and this version of reaction-tally reads schema 1.",
        "Update reaction-tally, or whatever is older: client and worker must have one schema.",
    ),
    "": (
        "tally:meta is missing, or has no schema.",
        "Check the address, the number of the database and TALLY_NAMESPACE.",
    ),
}


@pytest.fixture(params=[LATER, NONE], ids=["a later schema", "no schema"])
async def held(request: pytest.FixtureRequest) -> dict[str, str]:
    """What ``tally:meta`` holds."""
    return dict(request.param)


@pytest.fixture
async def world(
    valkey: RedisServer, real_redis: Any, held: dict[str, str], tmp_path: Path
) -> AsyncIterator[World]:
    """A world whose namespace is of another schema; nothing may change there."""
    async with open_world(valkey.url, tmp_path) as world:
        await real_redis.hset("tally:meta", mapping=held)
        yield world
        assert await real_redis.keys() == ["tally:meta"]
        assert await real_redis.hgetall("tally:meta") == held


def text_of(ended: Ended) -> str:
    """Return what a command said, in one line."""
    return " ".join((ended.out + ended.err).split())


@pytest.mark.parametrize("line", WRITE, ids=" ".join)
async def test_a_command_refuses_it(
    world: World, held: dict[str, str], line: tuple[str, ...]
) -> None:
    """Exit code 4, the reason, and what to do."""
    ended = await world.run_command(*line)

    assert ended.code == ExitCode.REDIS_UNFIT
    for sentence in WORKER_SAYS[held.get("schema", "")]:
        assert sentence in text_of(ended)


@pytest.mark.parametrize("line", READ, ids=" ".join)
async def test_a_command_that_reads_refuses_it(
    world: World, held: dict[str, str], line: tuple[str, ...]
) -> None:
    """The same, for readers: an empty answer would look like no reactions."""
    ended = await world.run_command(*line)

    assert ended.code == ExitCode.REDIS_UNFIT
    for sentence in CLIENT_SAYS[held.get("schema", "")]:
        assert sentence in text_of(ended)


async def test_a_worker_refuses_it(world: World, held: dict[str, str]) -> None:
    """In its log and at its end."""
    with pytest.raises(RedisUnfitError) as ended:
        async with world.commands().worker() as worker:
            await wait_until(worker.work.done)

    assert ended.value.exit_code == ExitCode.REDIS_UNFIT
    for sentence in WORKER_SAYS[held.get("schema", "")]:
        assert sentence in str(ended.value)


async def test_the_client_refuses_it(world: World, held: dict[str, str]) -> None:
    """Each read fails with a sentence; the changes do, too."""
    reader = AsyncTallyReader.from_url(world.settings["REDIS_URL"])
    async with reader:
        reads: list[Awaitable[object]] = [
            reader.check(),
            reader.page(ROOM, [MESSAGE]),
            reader.top(ROOM),
            anext(reader.changes([ROOM])),
        ]
        for read in reads:
            with pytest.raises(NotTheseTalliesError) as error:
                await read
            for sentence in CLIENT_SAYS[held.get("schema", "")]:
                assert sentence in str(error.value)
