"""Today's worker writes what the last release wrote, in the same form."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import pytest
from redis.asyncio import Redis

from tests.keyspaces.copies import golden_copies
from tests.keyspaces.dump import Line, read
from tests.keyspaces.forms import forms
from tests.keyspaces.history import History
from tests.redis_server import RedisServer
from tests.releases import TODAY
from tests.worlds import World, open_world

ADDITIONS: Final[dict[str, str]] = {}
"""Form → since which release it is there, and why older workers and clients do well with it.

A form that is gone or changed is another schema, and none of these.
"""
ENDS_SOON: Final = "tally:budget "
"""A key that lives for some seconds."""


@pytest.fixture
async def world(valkey: RedisServer, real_redis: Redis, tmp_path: Path) -> AsyncIterator[World]:
    """An empty world."""
    async with open_world(valkey.url, tmp_path) as world:
        yield world


@pytest.mark.processes
@pytest.mark.timeout(400)
async def test_the_forms_are_those_of_the_last_release(world: World) -> None:
    """Only what is listed as an addition may be new."""
    released = forms(golden_copies()[-1].lines)

    await History(world, TODAY).play()
    written = forms(await read(world.redis))

    gone = {form for form in released - written if not form.startswith(ENDS_SOON)}
    new = written - released
    assert (gone, new) == (set(), set(ADDITIONS)), "\n".join(sorted(gone) + sorted(new))


def test_another_form_is_noticed() -> None:
    """Another type, life, field, encoding, timetoken or change."""
    line = Line("tally:{room}:counts:17600000001728660", "hash", "for ever", [["reaction:👍", "1"]])
    changed = [
        Line(line.key, line.type, "a day", line.value),
        Line(line.key, "zset", line.life, [["reaction:👍", 1]]),
        Line(line.key, line.type, line.life, [["reaction%3A👍", "1"]]),
        Line(line.key, line.type, line.life, [["reaction:👍", "1.0"]]),
        Line("tally:room:counts:17600000001728660", line.type, line.life, line.value),
    ]

    for other in changed:
        assert forms([other]) != forms([line]), other
