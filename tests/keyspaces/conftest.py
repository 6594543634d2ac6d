"""The worlds of golden copies."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from tests.keyspaces.copies import Copy, golden_copies
from tests.keyspaces.dump import restore
from tests.keyspaces.history import IN_GROUP
from tests.redis_server import RedisServer
from tests.releases import Environment, NoHistoryError, checked_out
from tests.worlds import World, open_world


@pytest.fixture(params=golden_copies(), ids=lambda copy: copy.made.version)
def copy(request: pytest.FixtureRequest) -> Copy:
    """Each golden copy in turn."""
    copy = request.param
    assert isinstance(copy, Copy)
    return copy


@pytest.fixture
def old(copy: Copy, tmp_path: Path) -> Environment:
    """The code that made the copy."""
    try:
        return checked_out(copy.made.commit, tmp_path / "old")
    except NoHistoryError as error:
        pytest.skip(str(error))


@pytest.fixture
async def restored(
    valkey: RedisServer, real_redis: Redis, copy: Copy, tmp_path: Path
) -> AsyncIterator[World]:
    """A world in which the copy was made just now."""
    async with open_world(valkey.url, tmp_path) as world:
        await restore(world.redis, copy.lines)
        world.state.groups.add("club", [IN_GROUP])
        copy.restore_pubnub(world.state)
        world.settings |= copy.made.settings | {"TALLY_HISTORY_RATE": "1000"}
        yield world
