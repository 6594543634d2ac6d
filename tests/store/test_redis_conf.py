"""``deploy/redis.conf``: servers start with it, do what it says, and are fit for tallies."""

import re
from pathlib import Path
from typing import Any, Final, cast

import pytest

from tests.configured_server import DEPLOYED, ConfiguredServer, programs
from worker.domain.action import Added, Identity, Origin
from worker.store.connection import connect
from worker.store.keys import Keys
from worker.store.preflight import check_fitness
from worker.store.store import Store

SIZES: Final = {"kb": 1024, "mb": 1024**2, "gb": 1024**3}
FAMILY: Final = "👨‍👩‍👧‍👦"


def directives() -> dict[str, str]:
    """Return what the file says: name → value, a size in bytes."""
    lines = [
        line
        for line in DEPLOYED.read_text(encoding="utf-8").splitlines()
        if line and not line.startswith("#")
    ]
    said = {name: value.strip('"') for name, value in (line.split(maxsplit=1) for line in lines)}
    return {name: _bytes(value) for name, value in said.items()}


def _bytes(value: str) -> str:
    size = re.fullmatch(r"([0-9]+)(kb|mb|gb)", value)
    return str(int(size[1]) * SIZES[size[2]]) if size else value


@pytest.fixture(params=["Valkey", "Redis"])
def program(request: pytest.FixtureRequest) -> Path:
    """A server's program; Redis where this machine has one."""
    if request.param not in programs():
        pytest.skip(
            "no redis-server in the PATH of this machine: whether Redis does what deploy/redis.conf says"
        )
    return programs()[request.param]


async def test_a_server_does_what_the_file_says(program: Path) -> None:
    """It starts; CONFIG GET shows every line of it; a worker takes it."""
    with ConfiguredServer(program, DEPLOYED) as server:
        async with connect(server.url) as redis:
            shown = {name: (await redis.config_get(name))[name] for name in directives()}
            await check_fitness(redis)

    assert shown == directives()


async def test_long_emoji_and_user_ids_stay_packed(program: Path) -> None:
    """Up to the length PubNub allows; where a server is left as it is, one of them unpacks the message."""
    uuid, many = (
        "u" * 92,
        [Identity("room", "1", "reaction", value, "a" * 36) for value in ("👍", FAMILY)],
    )
    events = [
        Added(of, "1", "1") for of in (*many, Identity("room", "1", "reaction", FAMILY, uuid))
    ]
    found = {}
    for configuration in (DEPLOYED, None):
        with ConfiguredServer(program, configuration) as server:
            async with connect(server.url) as redis:
                await Store(redis, Keys()).apply("room", events, Origin.LIVE)
                found[configuration] = await cast("Any", redis).object(
                    "encoding", Keys().actions("room", "1")
                )

    assert (found[DEPLOYED] in {"listpack", "ziplist"}, found[None]) == (True, "hashtable")


def test_every_line_has_its_reason() -> None:
    """A comment stands above it, or above the lines it belongs with."""
    paragraphs = DEPLOYED.read_text(encoding="utf-8").split("\n\n")

    assert all(paragraph.startswith("# ") for paragraph in paragraphs)


def test_compose_starts_redis_with_the_file() -> None:
    """It is mounted where the command looks for it."""
    compose = DEPLOYED.with_name("compose.yaml").read_text(encoding="utf-8")

    assert 'command: ["redis-server", "/etc/redis.conf", ' in compose
    assert '"./redis.conf:/etc/redis.conf:ro"' in compose
