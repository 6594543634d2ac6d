"""What the address leads to: one server, the nodes of a cluster, or what Sentinels name."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, cast

from redis.asyncio import Redis
from redis.crc import REDIS_CLUSTER_HASH_SLOTS

from reaction_tally.addresses import Host, Kind
from worker.errors import RedisUnfitError
from worker.store.connector import Connector, connector_of
from worker.store.redis_errors import redis_errors
from worker.store.sentinel_pool import ask_sentinels
from worker.store.servers import is_cluster, servers


@dataclass(frozen=True, slots=True)
class ServersInWords:
    """What is behind an address, in words."""

    text: str = ""
    worry: str = ""
    """What may lose tallies, though nothing fails now."""


async def check_kind(redis: Redis, mode: str) -> None:
    """Refuse a node of a cluster, or a Sentinel, whose address is written like one server's.

    ``mode`` is what INFO says.

    Raises:
        RedisUnfitError: what it is, and what to write.
    """
    connector = connector_of(redis)
    if connector.kind:
        return
    if mode == "cluster":
        _refuse_node(connector)
    if mode == "sentinel":
        services = await _services(redis)
        _refuse_sentinel(connector, services)


def _refuse_node(connector: Connector) -> NoReturn:
    host, scheme = connector.first_host, connector.scheme
    raise RedisUnfitError(
        f"{host} is a node of a Redis Cluster. Write "
        f"REDIS_URL={scheme}+cluster://{host}, "
        "with the user and the password before it, and some more "
        "nodes behind commas."
    )


def _refuse_sentinel(connector: Connector, services: Sequence[str]) -> NoReturn:
    host, scheme = connector.first_host, connector.scheme
    known = ", ".join(map(repr, services)) or "none yet"
    service, *_ = (*services, "SERVICE")
    raise RedisUnfitError(
        f"{host} is a Sentinel, which holds no data. It knows these "
        f"services: {known}. "
        f"Write REDIS_URL={scheme}+sentinel://{host}/{service}, "
        "with the user and the password of Redis before it, and the "
        "other Sentinels behind commas."
    )


async def _services(redis: Redis) -> list[str]:
    client: Any = redis
    with redis_errors():
        return sorted(await client.sentinel_masters())


async def find_replicas(redis: Redis) -> list[Host]:
    """Return the replicas that follow: in a cluster, or where Sentinels watch.

    Raises:
        TallyError: a primary does not say it.
    """
    connector = connector_of(redis)
    if not connector.kind:
        return []
    with redis_errors():
        primaries = await servers(redis)
        if is_cluster(redis) and connector.has_tls:
            # INFO has IP addresses. Certificates may be for the names that the slot map has.
            nodes = cast("Any", redis).get_replicas()
            return [(node.host, node.port) for node in nodes]
        found = [await _replication_of(primary) for primary in primaries]
    return [host for info in found for host in _hosts(info)]


async def describe(redis: Redis) -> ServersInWords:
    """Return what is behind the address of a client.

    Raises:
        TallyError: it does not answer.
    """
    connector = connector_of(redis)
    if connector.kind is Kind.CLUSTER:
        return await _describe_cluster(redis)
    if connector.kind is Kind.SENTINEL:
        return await _describe_service(redis)
    return ServersInWords()


async def _describe_cluster(redis: Redis) -> ServersInWords:
    client: Any = redis
    with redis_errors():
        primaries = await client.ready_primaries()
        replicas = {node.name: await _replicas_of(node) for node in primaries}
    slots = client.nodes_manager.slots_cache
    alone = [name for name, count in replicas.items() if not count]
    text = (
        "It is a Redis Cluster: "
        f"{_count(len(primaries), 'primary', 'primaries')} "
        f"and {_count(sum(replicas.values()), 'replica', 'replicas')}; "
        f"{len(slots)} of {REDIS_CLUSTER_HASH_SLOTS} slots are covered."
    )
    return ServersInWords(text, _worry_about(alone))


async def _replicas_of(primary: Any) -> int:
    """Return how many replicas follow."""
    info = await _replication_of(primary)
    return int(info["connected_slaves"])


async def _replication_of(primary: Any) -> Mapping[str, Any]:
    """Return what a primary says of its replicas.

    CLUSTER SLOTS of Valkey may tell of earlier times. Sentinels count dead ones, too.
    """
    info: Mapping[str, Any] = await primary.execute_command("INFO", "replication")
    return info


def _hosts(info: Mapping[str, Any]) -> list[Host]:
    # A replica that has only just connected has no entry yet.
    replicas = [info[name] for name in info if re.fullmatch(r"slave\d+", name)]
    return [(replica["ip"], replica["port"]) for replica in replicas]


async def _describe_service(redis: Redis) -> ServersInWords:
    pool: Any = redis.connection_pool
    views = await ask_sentinels(pool.sentinel_manager)
    states = [view.services.get(pool.service_name) for view in views]
    known = [state for state in states if state]
    if not known:
        return ServersInWords()
    state = known[0]
    primary = f"{state['ip']}:{state['port']}"
    with redis_errors():
        replicas = await _replicas_of(redis)
    text = (
        f"Sentinels name it for the service {pool.service_name!r}: "
        f"{primary}, "
        f"with {_count(replicas, 'replica', 'replicas')}; "
        f"{len(known)} of the {len(views)} Sentinels in REDIS_URL "
        "know it."
    )
    return ServersInWords(text, _worry_about([] if replicas else [primary]))


def _worry_about(alone: list[str]) -> str:
    if not alone:
        return ""
    return (
        f"No replica follows {', '.join(alone)}: while such a "
        "primary is away, "
        "nothing of its tallies can be read or counted."
    )


def _count(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"
