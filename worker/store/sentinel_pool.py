"""redis-py's pool of connections to the primary that Sentinels name."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from redis.asyncio import Redis
from redis.asyncio.sentinel import Sentinel, SentinelConnectionPool
from redis.exceptions import AuthenticationError, RedisError, ResponseError

from worker.store.cluster_errors import NoPrimaryError
from worker.store.redis_errors import connection_failure

_OWN_OPTIONS: Final = "(the options sentinel_username and sentinel_password are for Sentinels)"
_UNKNOWN_COMMAND: Final = "unknown command"
"""What a server that is no Sentinel says to a question for one."""


class SentinelPool(SentinelConnectionPool):
    """A pool that says why there is no primary.

    It also ends its connections to the Sentinels.
    """

    async def get_master_address(self) -> Any:
        """Return host and port of the primary.

        Raises:
            NoPrimaryError: why nobody names one.
        """
        try:
            return await super().get_master_address()  # type: ignore[no-untyped-call]
        except RedisError as error:
            views = await ask_sentinels(self.sentinel_manager)
            raise NoPrimaryError(_explain(self.service_name, views)) from error

    async def aclose(self) -> None:
        """End all connections."""
        await super().aclose()
        await self.sentinel_manager.aclose()


@dataclass(frozen=True, slots=True)
class SentinelView:
    """What one Sentinel says."""

    address: str
    services: Mapping[str, Mapping[str, Any]]
    """Name → the state of the primary; empty if it does not answer."""
    error: Exception | None = None

    @property
    def problem(self) -> str:
        """Why it does not answer, for people."""
        if isinstance(self.error, AuthenticationError):
            return f"{self.address} refuses the credentials ({self.error}) {_OWN_OPTIONS}"
        return connection_failure(self.error) if self.error else ""

    @property
    def is_no_sentinel(self) -> bool:
        """Whether what answers is no Sentinel."""
        text = str(self.error)
        return isinstance(self.error, ResponseError) and text.startswith(_UNKNOWN_COMMAND)


async def ask_sentinels(manager: Sentinel) -> Sequence[SentinelView]:
    """Ask every Sentinel for all services that it knows."""
    return await asyncio.gather(*map(_ask, manager.sentinels))


async def _ask(sentinel: Redis) -> SentinelView:
    client: Any = sentinel
    options = client.get_connection_kwargs()
    address = f"{options['host']}:{options['port']}"
    try:
        services = await client.sentinel_masters()
    except (RedisError, OSError) as error:
        return SentinelView(address, {}, error)
    return SentinelView(address, services)


def _explain(service: str, views: Sequence[SentinelView]) -> str:
    """Return a sentence for people: why no Sentinel names a primary of this service."""
    others = [view for view in views if view.is_no_sentinel]
    if others:
        other = others[0]
        return (
            f"{other.address} is no Sentinel. "
            "Correct the hosts in REDIS_URL, or write "
            f"redis://{other.address} if this server has the tallies."
        )
    if all(view.error for view in views):
        problems = "; ".join(view.problem for view in views)
        return (
            f"No Sentinel in REDIS_URL answers: {problems}. "
            "Are they running, and is REDIS_URL right?"
        )
    known = sorted({name for view in views for name in view.services})
    if service in known:
        return (
            f"The Sentinels know no primary of {service!r} that is up. "
            "A failover may be under way; "
            "their logs say why if it does not end."
        )
    names = ", ".join(map(repr, known)) or "none"
    return (
        f"The Sentinels know no service {service!r}. They know: {names}. "
        "Correct the service in REDIS_URL."
    )
