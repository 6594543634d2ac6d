"""``tally doctor`` looks at replicas: the next failover may make one the primary."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any, Final

import pytest

from reaction_tally.keys import Keys
from tests.redis_server import RedisServer
from tests.sentinels import Sentinels
from tests.server_nodes import Node
from worker.errors import ExitCode
from worker.service.doctor import Deadline, Finding
from worker.service.redis_examination import examine_redis, examine_replicas
from worker.store.connection import connect
from worker.store.preflight import COMMANDS

pytestmark = pytest.mark.processes

KEYS: Final = Keys()
RULES: Final = ("reset", "on", ">word", "~tally:*", "&tally:*", *COMMANDS)
"""A user as deploy/redis-users.acl has it."""
PATIENT: Final = 30_000
"""Milliseconds: nobody is taken for dead because the machine is busy."""


@pytest.fixture(scope="module")
def watched() -> Iterator[Sentinels]:
    """A primary with two replicas, and a Sentinel."""
    with Sentinels(replicas=2, sentinels=1, down_milliseconds=PATIENT) as sentinels:
        yield sentinels


@pytest.fixture(params=["cluster", "sentinels"])
def servers(request: pytest.FixtureRequest) -> Any:
    """Servers with replicas: first a cluster, then what Sentinels name."""
    names = {"cluster": "redis_cluster", "sentinels": "watched"}
    return request.getfixturevalue(names[request.param])


@asynccontextmanager
async def user_on(nodes: list[Node]) -> AsyncIterator[None]:
    """Let the worker's user be known on these nodes."""
    try:
        for node in nodes:
            node.ask("ACL", "SETUSER", "tally", *RULES)
        yield
    finally:
        for node in nodes:
            node.ask("ACL", "DELUSER", "tally")


def a_replica(servers: Any) -> Node:
    """Return a node that is not the primary."""
    replica: Node = next(node for node in servers.up() if not node.is_primary())
    return replica


async def examined(url: str, *, allow_eviction: bool = False) -> list[Finding]:
    """Return what is said of replicas; the primaries are fit."""
    async with connect(url) as redis:
        options = {"allow_eviction": allow_eviction}
        for finding in await examine_redis(redis, KEYS, None, Deadline(), **options):
            assert finding.exit_code is ExitCode.DONE, finding
        return await examine_replicas(redis, KEYS, Deadline(), **options)


async def test_replicas_that_are_fit_are_counted(servers: Any) -> None:
    """Also with a user who may do no more than a worker. Nothing is written."""
    count = len([node for node in servers.up() if not node.is_primary()])
    async with user_on(servers.up()):
        (finding,) = await examined(servers.url.replace("://", "://tally:word@"))

    assert finding == Finding("Redis", f"replicas that are as fit as their primary: {count}")
    assert all(node.ask("DBSIZE") == 0 for node in servers.up())


async def test_a_replica_that_evicts_is_named(servers: Any) -> None:
    """``--allow-eviction`` accepts it, as at a primary."""
    replica = a_replica(servers)
    replica.ask("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    try:
        (finding,) = await examined(servers.url)
        (accepted,) = await examined(servers.url, allow_eviction=True)
    finally:
        replica.ask("CONFIG", "SET", "maxmemory-policy", "noeviction")

    place = f"{replica.address} is a replica, and may become the primary. "
    assert finding.text.startswith(f"{place}Redis has maxmemory-policy allkeys-lru")
    assert finding.exit_code is ExitCode.REDIS_UNFIT
    assert accepted.exit_code is ExitCode.DONE


async def test_a_replica_without_the_user_is_named(servers: Any) -> None:
    """Redis does not replicate users."""
    replica = a_replica(servers)
    url = servers.url.replace("://", "://tally:word@")
    async with user_on(servers.up()):
        replica.ask("ACL", "SETUSER", "tally", "-hset")
        (lacking,) = await examined(url)
        replica.ask("ACL", "SETUSER", "tally", "+hset", "-publish")
        (quiet,) = await examined(url)
        replica.ask("ACL", "DELUSER", "tally")
        (unknown,) = await examined(url)

    place = f"{replica.address} is a replica, and may become the primary. "
    assert lacking.text.startswith(f"{place}The worker uses HSET, which Redis does not permit")
    assert lacking.text.endswith("type: redis-cli ACL SETUSER tally +hset")
    assert quiet.text.startswith(f"{place}It does not permit PUBLISH")
    assert (quiet.verdict, quiet.exit_code) == ("note", ExitCode.DONE)
    assert unknown.text.startswith(f"{place}It refuses user 'tally' of REDIS_URL")
    assert "make the users of the primary there, too." in unknown.text
    assert {lacking.exit_code, unknown.exit_code} == {ExitCode.REDIS_UNFIT}


async def test_a_replica_that_cannot_be_reached_is_named() -> None:
    """One is dead, and one hangs. Nobody knows how fit they are, and nothing fails now."""
    with Sentinels(replicas=2, sentinels=1, down_milliseconds=PATIENT) as sentinels:
        dead, hanging = sentinels.replicas()
        dead.kill()
        hanging.pause()
        findings = await examined(sentinels.url)

    said = {finding.text.split()[0]: finding for finding in findings}
    assert said.keys() == {dead.address, hanging.address}
    assert "It cannot be looked at: " in said[dead.address].text
    assert "connection refused" in said[dead.address].text
    assert "It cannot be looked at: no answer in 4 s." in said[hanging.address].text
    assert {(it.verdict, it.exit_code) for it in findings} == {("note", ExitCode.DONE)}


async def test_of_one_server_no_replica_is_looked_for(valkey: RedisServer, real_redis: Any) -> None:
    """Its address leads to no other one."""
    assert await examined(valkey.url) == []
