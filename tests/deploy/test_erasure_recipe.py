"""What ``personal-data.md`` tells a person to type removes a user's actions at PubNub."""

import asyncio
import re
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import pytest

from tests.deploy.dockerfile import ROOT
from tests.redis_server import RedisServer
from tests.worlds import KEY, ROOM, World, open_world

DOCUMENT: Final = (ROOT / "deploy/personal-data.md").read_text("utf-8")
USERS: Final = ("ana", "an/a?&#%+ b")


@pytest.fixture
async def world(valkey: RedisServer, real_redis: Any, tmp_path: Path) -> AsyncIterator[World]:
    """A PubNub, a Redis and a folder."""
    async with open_world(valkey.url, tmp_path) as world:
        yield world


async def test_the_recipe_removes_the_actions_of_an_export_and_no_others(world: World) -> None:
    """PubNub removes an action for its own user only. Typed again, the recipe says what is gone."""
    for user in (*USERS, "ben"):
        world.react(uuid=user)
    world.react("🎉")
    await world.run_command("backfill")
    exported = await world.run_command("users", "export", "--json", *USERS)
    (world.folder / "export.json").write_text(exported.out.splitlines()[-1], encoding="utf-8")

    first = await asyncio.to_thread(typed, world)
    second = await asyncio.to_thread(typed, world)

    assert [action.identity.uuid for action in world.state.actions(ROOM)] == ["ben"]
    assert first == ""
    assert second.count("No matching message actions") == 3


def typed(world: World) -> str:
    """Run the recipe in the world's folder; return what it prints."""
    (recipe,) = re.findall(r"```python\n(.*?)```", DOCUMENT, re.DOTALL)
    settings = {"subscribe_key": KEY, "origin": world.emulator.origin, "ssl": False}
    here = "".join(f"config.{name} = {value!r}\n    " for name, value in settings.items())
    program = textwrap.dedent("   " + recipe.lstrip()).replace("…", "x")
    program = program.replace("config.user_id", f"{here}config.user_id")
    ran = subprocess.run(
        [sys.executable, "-c", program],
        cwd=world.folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout
