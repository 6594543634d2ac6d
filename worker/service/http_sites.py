"""What the worker serves over HTTP besides its own pages."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Final

from worker.api.site import PREFIX, opened_api
from worker.board.site import PREFIX as BOARD_PREFIX
from worker.service.board import board_of_worker
from worker.service.health import Health
from worker.service.parts import Parts
from worker.settings import Settings
from worker.store.connection import reading_client
from worker.telemetry.address import Address
from worker.web.access import Access
from worker.web.site import Site
from worker.web.streams import Streams

CONNECTIONS: Final = 8
"""Connections to Redis for all requests together. The worker has its own."""


@dataclass(frozen=True, slots=True)
class Sites:
    """What is served besides the pages."""

    sites: tuple[Site, ...]
    streams: Streams

    @property
    def prefixes(self) -> list[str]:
        """Where the sites are."""
        return [site.prefix for site in self.sites]


@asynccontextmanager
async def opened_sites(parts: Parts, health: Health) -> AsyncIterator[Sites]:
    """Yield the sites that are configured."""
    settings = parts.settings
    streams = Streams()
    sites: list[Site] = []
    async with AsyncExitStack() as stack:
        if settings.api:
            redis = await stack.enter_async_context(reading_client(parts.redis, CONNECTIONS))
            access = Access(settings.api_token)
            origins = settings.api_origins
            api = opened_api(redis, settings.namespace, streams, access, origins)
            sites.append(await stack.enter_async_context(api))
        if settings.board:
            access = Access(settings.api_token)
            board = board_of_worker(parts, health, access, streams)
            sites.append(await stack.enter_async_context(board))
        yield Sites(tuple(sites), streams)


def describe_api(settings: Settings, address: Address) -> str:
    """Return who may use the API, in words."""
    return f"on at {address}{PREFIX}, for {_users(settings)}"


def describe_board(settings: Settings, address: Address) -> str:
    """Return where the board is and who may read it, in words."""
    return f"on at http://{address}{BOARD_PREFIX}, for {_users(settings)}"


def _users(settings: Settings) -> str:
    if settings.api_token:
        return "whoever sends the token"
    return "every program on this machine, without a token"
