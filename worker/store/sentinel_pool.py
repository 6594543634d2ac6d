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


@dataclass(frozen=True, slots=True, kw_only=True)
class SentinelView:
    """What one Sentinel says."""

    place: str
    services: Mapping[str, Mapping[str, Any]]
    """Name → the state of the primary; empty if it does not answer."""
    problem: str = ""
    is_another_server: bool = False


async def ask_all(manager: Sentinel) -> Sequence[SentinelView]:
    """Ask every Sentinel for all it knows."""
    return await asyncio.gather(*map(_ask, manager.sentinels))


async def _ask(sentinel: Redis) -> SentinelView:
    client: Any = sentinel
    options = client.get_connection_kwargs()
    place = f"{options['host']}:{options['port']}"
    try:
        services = await client.sentinel_masters()
    except AuthenticationError as error:
        problem = f"{place} refuses the credentials ({error})"
        return SentinelView(place=place, services={}, problem=problem)
    except ResponseError as error:
        is_other = str(error).startswith(_UNKNOWN)
        problem = f"{place} refuses the question ({error})"
        return SentinelView(
            place=place,
            services={},
            problem=problem,
            is_another_server=is_other,
        )
    except (RedisError, OSError) as error:
        problem = connection_failure(error)
        return SentinelView(place=place, services={}, problem=problem)
    return SentinelView(place=place, services=services)


def _explain(service: str, views: Sequence[SentinelView]) -> str:
    """Return a sentence for people: why no Sentinel names a primary of this service."""
    others = [view.place for view in views if view.is_another_server]
    if others:
        return (
            f"{others[0]} is no Sentinel. Correct the hosts in REDIS_URL, "
            f"or write redis://{others[0]} if this server has the tallies."
        )
    answering = [view for view in views if not view.problem]
    if not answering:
        problems = "; ".join(view.problem for view in views)
        refused = any("credentials" in view.problem for view in views)
        advice = (
            "The options sentinel_username and sentinel_password in REDIS_URL are theirs."
            if refused
            else "Are they running, and is REDIS_URL right?"
        )
        return f"No Sentinel in REDIS_URL answers: {problems}. {advice}"
    known = sorted({name for view in answering for name in view.services})
    if service not in known:
        names = ", ".join(map(repr, known)) or "none"
        return (
            f"The Sentinels know no service {service!r}. They know: {names}. "
            "Correct the service in REDIS_URL."
        )
    return (
        f"The Sentinels know no primary of {service!r} that is up. "
        "A failover may be under way; their logs say why if it does not end."
    )
