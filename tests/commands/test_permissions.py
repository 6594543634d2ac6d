"""A worker whose user of Redis may do what our file says, and one that loses a permission."""

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final, cast

import pytest

from reaction_tally.keys import Keys, read_hint
from tests.redis_server import RedisServer
from tests.waiting import wait_until
from tests.worlds import MESSAGE, ROOM, World, open_world
from worker.errors import ExitCode

USERS: Final = Path(__file__).parents[2] / "deploy" / "redis-users.acl"
SETTINGS: Final = {"TALLY_SETTLE_SECONDS": "0.3", "TALLY_LOG_FORMAT": "json"}
USER: Final = "tally"


def recipe() -> list[str]:
    """Return what our file of users lets the worker do. There it has no password, and is off."""
    (rules,) = re.findall(r"^user tally (.*)", USERS.read_text("utf-8"), re.MULTILINE)
    return [*rules.split(), "on", ">PASSWORD"]


@pytest.fixture
async def world(valkey: RedisServer, real_redis: object, tmp_path: Path) -> AsyncIterator[World]:
    """A world on an empty Redis, whose commands have a user of their own."""
    async with open_world(valkey.url, tmp_path) as world:
        await permit(world, "reset", *recipe())
        world.settings["REDIS_URL"] = valkey.url.replace("redis://", f"redis://{USER}:PASSWORD@")
        yield world
        await cast("Any", world.redis).execute_command("ACL", "DELUSER", USER)


async def permit(world: World, *rules: str) -> None:
    """Change what the user may do."""
    await cast("Any", world.redis).execute_command("ACL", "SETUSER", USER, *rules)


async def test_the_rules_of_our_file_let_programs_follow_at_once(world: World) -> None:
    """The worker may publish hints."""
    async with world.redis.pubsub() as subscription:
        await subscription.subscribe(Keys().hints)

        async def is_hinted() -> bool:
            message = await subscription.get_message(ignore_subscribe_messages=True)
            return bool(message and read_hint(message["data"]))

        async with world.run_worker(**SETTINGS) as worker:
            world.react("👍", "ana")
            await wait_until(is_hinted, what=lambda: worker.err)


@pytest.mark.parametrize("command", ["backfill", "reconcile"])
async def test_a_command_without_a_permission_does_not_start(world: World, command: str) -> None:
    """It says which, of whom, and what to type. Nothing was written."""
    await permit(world, "-xadd")

    ended = await world.do(command, **SETTINGS)

    assert ended.process.returncode == ExitCode.REDIS_UNFIT
    text = ended.out + ended.err
    assert "The worker uses XADD, which Redis does not permit to user 'tally'." in text
    assert "type: redis-cli ACL SETUSER tally +xadd" in text
    assert not await world.redis.keys("tally:*")


async def test_a_permission_that_is_taken_away_costs_no_count(world: World) -> None:
    """A script stops half-way, again and again. The log names it, and the room is owed a repair."""
    async with world.run_worker(**SETTINGS) as worker:
        action = world.react("👍", "ana")
        world.react("👍", "ben")
        world.react("👍", "cleo")
        await world.wait_for_counts({"👍": 3})
        await wait_until(world.owes_nothing)
        await permit(world, "-hdel")
        world.take_back(action)

        async def is_said() -> bool:
            return bool(worker.entries("half_applied")) and await world.owed() == {"half_applied"}

        await wait_until(is_said, what=lambda: worker.err)
        await permit(world, "+hdel")

        async def is_exact() -> bool:
            return await world.is_exact() and await world.owes_nothing()

        await wait_until(is_exact, what=lambda: worker.err)
    explained = await world.run_command("explain", ROOM, MESSAGE, **SETTINGS)
    assert "removed applied" in explained.out
