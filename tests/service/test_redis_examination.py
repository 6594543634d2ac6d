"""``tally doctor`` looks at replicas: the next failover may make one the primary."""

import shutil
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from reaction_tally.keys import Keys
from tests.redis_cluster import RedisCluster
from tests.redis_server import RedisServer
from tests.sentinels import Sentinels
from tests.server_nodes import HOST, Node
from tests.waiting import wait_until
from worker.errors import ExitCode
from worker.service.doctor import LOOK_SECONDS, Deadline, Finding
from worker.service.redis_examination import examine_redis, examine_replicas
from worker.store.connection import connect
from worker.store.preflight import COMMANDS

pytestmark = pytest.mark.processes

KEYS: Final = Keys()
RULES: Final = ("reset", "on", ">word", "~tally:*", "&tally:*", *COMMANDS)
"""A user as deploy/redis-users.acl has it."""
OF_SENTINEL: Final = ("+ping", "+sentinel|masters")
"""What deploy/reference.md says that a user of Sentinels needs."""
REDIS: Final = shutil.which("redis-server")
"""Debian's Redis has TLS; the embedded Valkey is built without."""
NAME: Final = "127.1"
"""A host name that every machine resolves. For ``localhost`` redis-py takes the address."""
NAMED: Final[Mapping[str, Any]] = {
    "cluster_announce_hostname": NAME,
    "cluster_preferred_endpoint_type": "hostname",
    "repl_ping_replica_period": "1",  # others name a replica after the first one
}
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


async def examined(
    url: str,
    *,
    allow_eviction: bool = False,
    seconds: float = LOOK_SECONDS,
) -> list[Finding]:
    """Return what is said of replicas in so many seconds; the primaries are fit."""
    async with connect(url) as redis:
        options = {"allow_eviction": allow_eviction}
        for finding in await examine_redis(redis, KEYS, None, Deadline(), **options):
            assert finding.exit_code is ExitCode.DONE, finding
        return await examine_replicas(redis, KEYS, Deadline(seconds), **options)


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


async def test_a_replica_needs_no_right_of_its_own(servers: Any) -> None:
    """Redis 6.2 counts READONLY and ASKING among commands for keys, which a worker may not run."""
    count = len([node for node in servers.up() if not node.is_primary()])
    async with user_on(servers.up()):
        for node in servers.up():
            node.ask("ACL", "SETUSER", "tally", "-readonly", "-asking")
        (finding,) = await examined(servers.url.replace("://", "://tally:word@"))

    assert finding == Finding("Redis", f"replicas that are as fit as their primary: {count}")


async def test_a_user_of_a_replica_has_the_keys(servers: Any) -> None:
    """The sentence says what to grant there."""
    replica = a_replica(servers)
    async with user_on(servers.up()):
        replica.ask("ACL", "SETUSER", "tally", "resetkeys", "~other:*")
        (finding,) = await examined(servers.url.replace("://", "://tally:word@"))

    assert finding.text.startswith(f"{replica.address} is a replica")
    assert "type: redis-cli ACL SETUSER tally '~tally:*'" in finding.text
    assert finding.exit_code is ExitCode.REDIS_UNFIT


async def test_a_replica_that_cannot_be_looked_at_is_named() -> None:
    """Two hang: nobody knows how fit they are, and nothing fails now. Of a dead one none speaks."""
    with Sentinels(replicas=3, sentinels=1, down_milliseconds=PATIENT) as sentinels:
        dead, *hanging = sentinels.replicas()
        dead.kill()
        await wait_until(lambda: sentinels.primary().info()["connected_slaves"] == len(hanging))
        for node in hanging:
            node.pause()
        findings = await examined(sentinels.url, seconds=1)
        (late,) = await examined(sentinels.url, seconds=0)

    said = {finding.text.split()[0]: finding for finding in findings}
    assert said.keys() == {node.address for node in hanging}
    assert all("It cannot be looked at: no answer in time." in it.text for it in findings)
    assert late.text == "No replica was looked at: no answer in 0 s."
    assert {(it.verdict, it.exit_code) for it in [*findings, late]} == {("note", ExitCode.DONE)}


async def test_a_replica_that_never_becomes_the_primary_is_left_alone() -> None:
    """Sentinels promote none of priority 0."""
    with Sentinels(1, 1, down_milliseconds=PATIENT, replica_priority="0") as sentinels:
        (replica,) = sentinels.replicas()
        replica.ask("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
        assert await examined(sentinels.url) == []
        replica.ask("CONFIG", "SET", "replica-priority", "1")
        (finding,) = await examined(sentinels.url)

    assert "Redis has maxmemory-policy allkeys-lru" in finding.text


async def test_a_sentinel_is_asked_only_what_clients_ask() -> None:
    """A user of Sentinels needs no other right for doctor."""
    with Sentinels(replicas=1, sentinels=1, down_milliseconds=PATIENT) as sentinels:
        (sentinel,) = sentinels.sentinels
        sentinel.ask("ACL", "SETUSER", "client", "reset", "on", ">word", *OF_SENTINEL)
        login = {"sentinel_username": "client", "sentinel_password": "word"}
        (finding,) = await examined(sentinels.address(**login))

    assert finding == Finding("Redis", "replicas that are as fit as their primary: 1")


@pytest.mark.skipif(not REDIS, reason="needs redis-server, which speaks TLS")
async def test_certificates_may_have_host_names() -> None:
    """The cluster announces the names, and no certificate is for an IP address."""
    with NamedCluster(1, 1, program=Path(str(REDIS)), tls=True, **NAMED) as cluster:
        await wait_until(lambda: cluster.announced() == [NAME] * 4)
        (finding,) = await examined(cluster.url.replace(HOST, NAME))

    assert finding == Finding("Redis", "replicas that are as fit as their primary: 1")


class NamedCluster(RedisCluster):
    """A cluster of which the certificates have a host name alone."""

    names = (NAME,)

    def announced(self) -> list[str]:
        """Return the host names that each node has of all."""
        answers = [node.ask("CLUSTER", "SLOTS") for node in self.nodes]
        return [name for ((_, _, *nodes),) in answers for name, *_ in nodes]


async def test_of_one_server_no_replica_is_looked_for(valkey: RedisServer, real_redis: Any) -> None:
    """Its address leads to no other one."""
    assert await examined(valkey.url) == []
