"""redis-py's pool of connections to the primary that Sentinels name."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Final

from redis.asyncio import Redis
from redis.asyncio.sentinel import Sentinel, SentinelConnectionPool
from redis.exceptions import AuthenticationError, RedisError, ResponseError

from worker.store.cluster_errors import NoPrimaryError
from worker.store.redis_errors import connection_failure

_ITS_OWN: Final = "(the options sentinel_username and sentinel_password are for Sentinels)"
_UNKNOWN: Final = "unknown command"
"""What a server that is no Sentinel says to a question for one."""


class SentinelPool(SentinelConnectionPool):
    """A pool that says why there is no primary. It also ends its connections to the Sentinels."""

    async def get_master_address(self) -> Any:
        """Return host and port of the primary.

        Raises:
            NoPrimaryError: why nobody names one.
        """
        try:
            return await super().get_master_address()  # type: ignore[no-untyped-call]
        except RedisError as error:
            views = await ask_all(self.sentinel_manager)
            raise NoPrimaryError(_explain(self.service_name, views)) from error

    async def aclose(self) -> None:
        """End all connections."""
        await super().aclose()
        await self.sentinel_manager.aclose()


@dataclass(frozen=True, slots=True)
class SentinelView:
    """What one Sentinel says."""

    place: str
    services: Mapping[str, Mapping[str, Any]]
    """Name → the state of the primary; empty if it does not answer."""
    error: Exception | None = None

    @property
    def problem(self) -> str:
        """Why it does not answer, for people."""
        if isinstance(self.error, AuthenticationError):
            return f"{self.place} refuses the credentials ({self.error}) {_ITS_OWN}"
        return connection_failure(self.error) if self.error else ""

    @property
    def is_another_server(self) -> bool:
        """Whether what answers is no Sentinel."""
        return isinstance(self.error, ResponseError) and str(self.error).startswith(_UNKNOWN)


async def ask_all(manager: Sentinel) -> Sequence[SentinelView]:
    """Ask every Sentinel for all it knows."""
    return await asyncio.gather(*map(_ask, manager.sentinels))


async def _ask(sentinel: Redis) -> SentinelView:
    client: Any = sentinel
    options = client.get_connection_kwargs()
    place = f"{options['host']}:{options['port']}"
    try:
        services = await client.sentinel_masters()
    except (RedisError, OSError) as error:
        return SentinelView(place, {}, error)
    return SentinelView(place, services)


def _explain(service: str, views: Sequence[SentinelView]) -> str:
    """Return a sentence for people: why no Sentinel names a primary of this service."""
    other = next(filter(attrgetter("is_another_server"), views), None)
    if other:
        return (
            f"{other.place} is no Sentinel. Correct the hosts in REDIS_URL, "
            f"or write redis://{other.place} if this server has the tallies."
        )
    if all(view.error for view in views):
        problems = "; ".join(map(attrgetter("problem"), views))
        return (
            f"No Sentinel in REDIS_URL answers: {problems}. "
            "Are they running, and is REDIS_URL right?"
        )
    known = sorted(set().union(*map(attrgetter("services"), views)))
    if service in known:
        return (
            f"The Sentinels know no primary of {service!r} that is up. "
            "A failover may be under way; their logs say why if it does not end."
        )
    names = ", ".join(map(repr, known)) or "none"
    return (
        f"The Sentinels know no service {service!r}. They know: {names}. "
        "Correct the service in REDIS_URL."
    )
