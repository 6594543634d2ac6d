"""Can a worker serve its pages at ``TALLY_HTTP``?"""

import asyncio
import os

from worker.errors import ConfigurationError
from worker.service.doctor import Note
from worker.settings import Settings, sites_of
from worker.telemetry.address import Address
from worker.telemetry.health_request import request_health


async def check_address(settings: Settings) -> str:
    """Return a sentence, or a note, about the address, at which nothing listens afterwards.

    Raises:
        ConfigurationError: a worker would not start.
    """
    address = settings.http
    if address is None:
        return "off"
    problem = await _listen(address)
    if not problem:
        return f"{address} is free"
    if await _has_worker(address):
        return f"{address} is in use: by a worker that runs already"
    sentence = f"cannot listen at {address}: {problem}."
    if sites_of(settings) or settings.is_set("TALLY_HTTP"):
        raise ConfigurationError(f"{sentence} Set another address, or off.")
    return Note(f"{sentence} A worker would run without its pages.")


async def _listen(address: Address) -> str:
    """Bind to the address for a moment; return why that fails."""
    loop = asyncio.get_running_loop()
    host, port = address
    try:
        server = await loop.create_server(asyncio.Protocol, host, port, start_serving=False)
    except OSError as error:
        return why_not(error)
    server.close()
    return ""


def why_not(error: OSError) -> str:
    """Return why one cannot listen. The words of asyncio repeat the address."""
    number = error.errno or 0
    return os.strerror(number) if number > 0 else str(error.strerror)


async def _has_worker(address: Address) -> bool:
    host, port = address.reachable_host, address.port
    failures = await asyncio.to_thread(request_health, host, port, "/livez")
    return not failures
