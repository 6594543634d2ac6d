"""Servers do what ``deploy/redis.conf`` says, and are fit for tallies."""

import re
from pathlib import Path
from typing import Any, Final, cast

import pytest

from reaction_tally.keys import Keys
from tests.configured_server import DEPLOYED, ConfiguredServer, programs
from tests.store.examples import apply
from worker.domain.action import Added, Identity
from worker.store.connection import connect
from worker.store.preflight import check_fitness
from worker.store.store import Store

SIZES: Final = {"kb": 1024, "mb": 1024**2, "gb": 1024**3}
FAMILY: Final = "👨‍👩‍👧‍👦"


def directives() -> dict[str, str]:
    """Return name → value of the file; sizes in bytes."""
    lines = [
        line
        for line in DEPLOYED.read_text(encoding="utf-8").splitlines()
        if line and not line.startswith("#")
    ]
    pairs = [line.split(maxsplit=1) for line in lines]
    return {name: _bytes(value.strip('"')) for name, value in pairs}


def _bytes(value: str) -> str:
    size = re.fullmatch(r"([0-9]+)(kb|mb|gb)", value)
    return str(int(size[1]) * SIZES[size[2]]) if size else value


@pytest.fixture(params=["Valkey", "Redis"])
def program(request: pytest.FixtureRequest) -> Path:
    """Return the program of a server."""
    if request.param not in programs():
        pytest.skip(
            "no redis-server in the PATH of this machine: "
            "whether Redis does what deploy/redis.conf says"
        )
    return programs()[request.param]


async def test_a_server_does_what_the_file_says(program: Path) -> None:
    """It starts. CONFIG GET shows every line. A worker accepts it."""
    with ConfiguredServer(program, DEPLOYED) as server:
        async with connect(server.url) as redis:
            shown = {name: (await redis.config_get(name))[name] for name in directives()}
            await check_fitness(redis)

    assert shown == directives()


async def test_long_emoji_and_user_ids_stay_packed(program: Path) -> None:
    """PubNub allows 92 characters. With a server's defaults one such uuid unpacks the hash."""
    users = [("👍", "a" * 36), (FAMILY, "a" * 36), (FAMILY, "u" * 92)]
    identities = [Identity("room", "1", "reaction", value, uuid) for value, uuid in users]
    events = [Added(identity, "1", "1") for identity in identities]
    encodings = {}
    for configuration in (DEPLOYED, None):
        with ConfiguredServer(program, configuration) as server:
            async with connect(server.url) as redis:
                await apply(Store(redis, Keys()), events)
                encodings[configuration] = await cast("Any", redis).object(
                    "encoding", Keys().actions("room", "1")
                )

    assert encodings[DEPLOYED] in {"listpack", "ziplist"}
    assert encodings[None] == "hashtable"


def test_compose_starts_redis_with_the_file() -> None:
    """The file is mounted where the command reads it."""
    compose = DEPLOYED.with_name("compose.yaml").read_text(encoding="utf-8")

    assert 'command: ["redis-server", "/etc/redis.conf", ' in compose
    assert '"./redis.conf:/etc/redis.conf:ro"' in compose
