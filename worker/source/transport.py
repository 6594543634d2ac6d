"""The way to the wire and back: what the SDK has built and signed is sent, and comes back untouched.

The SDK takes a transport of one's own (``custom_request_handler``). Its httpx looks at every connection at each
request, which polls by the hundred cannot afford, and takes longer to bring an answer than its JSON takes to read;
aiohttp, which the SDK requires, too, does neither. Not HTTP/2: a cancelled poll must free what it held, see the traps.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import aiohttp
import httpx
from pubnub.enums import PNStatusCategory
from pubnub.models.envelopes import AsyncioEnvelope
from pubnub.request_handlers.base import BaseRequestHandler
from pubnub.structures import ResponseInfo
from pubnub.utils import build_url
from yarl import URL

__all__ = ["LostError", "Response", "Transport"]

LOOK_SECONDS: Final = 5.0
"""How soon after a machine wakes it is noticed that a request has taken too long."""


class LostError(Exception):
    """No answer came. Says why in our own words: those of the HTTP client may carry the URL."""


@dataclass(frozen=True, slots=True)
class Response:
    """What came back, whatever its status."""

    status_code: int
    headers: Mapping[str, str]
    content: bytes


class Wire:
    """Connections for so many requests at once, one for each: over HTTP/1.1 a poll holds its own."""

    def __init__(self, connections: int, *, tls: bool) -> None:
        self._room = asyncio.Semaphore(connections)
        # The SDK's own choice of certificates to trust.
        self.connector = aiohttp.TCPConnector(
            limit=0, keepalive_timeout=5.0, ssl=httpx.create_ssl_context() if tls else False
        )
        self._session = aiohttp.ClientSession(
            connector=self.connector, cookie_jar=aiohttp.DummyCookieJar()
        )

    async def close(self) -> None:
        """Drop every connection; requests under way are lost."""
        await self._session.close()

    async def request(
        self, url: str, headers: Mapping[str, str], connect_seconds: float
    ) -> Response:
        """Ask, and return the whole answer.

        Raises:
            LostError: there is none.
        """
        retry = aiohttp.ClientTimeout(
            total=None, connect=connect_seconds
        )  # looking the name up, too
        await self._enter(connect_seconds)
        try:
            with _in_our_words():
                # Nobody is followed elsewhere: the address carries the token.
                sent = self._session.get(
                    URL(url, encoded=True), headers=headers, timeout=retry, allow_redirects=False
                )
                async with sent as response:
                    return Response(response.status, response.headers, await response.read())
        finally:
            self._room.release()

    async def _enter(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds if self._room.locked() else None):
                await self._room.acquire()
        except TimeoutError:
            raise LostError("every connection of this client is in use") from None


@contextmanager
def _in_our_words() -> Iterator[None]:
    try:
        yield
    except aiohttp.ConnectionTimeoutError:
        raise LostError("no connection in time") from None
    except aiohttp.ClientConnectorCertificateError:
        raise LostError("no connection: the certificate is not to be trusted") from None
    except aiohttp.ClientConnectorError:
        raise LostError("no connection") from None
    except (aiohttp.ClientError, OSError):
        raise LostError("the connection broke before the answer was whole") from None


class Deadlines:
    """Ends what takes too long, by the wall clock, too: the loop's own stands still while a machine is suspended."""

    def __init__(self) -> None:
        self._ends: dict[asyncio.Timeout, float] = {}
        self._watch: asyncio.TimerHandle | None = None

    async def keep(self, seconds: float, sending: Awaitable[Response]) -> Response:
        """Return what is awaited.

        Raises:
            TimeoutError: it took longer, whether or not the machine was awake.
        """
        limit = asyncio.timeout(seconds)
        self._ends[limit] = time.time() + seconds
        if not self._watch:
            self._look()
        try:
            async with limit:
                return await sending
        finally:
            del self._ends[limit]

    def stop(self) -> None:
        """Look no more."""
        if self._watch:
            self._watch.cancel()

    def _look(self) -> None:
        now, loop = time.time(), asyncio.get_running_loop()
        for limit, end in self._ends.items():
            if now > end and not limit.expired():
                limit.reschedule(loop.time())
        self._watch = loop.call_later(LOOK_SECONDS, self._look) if self._ends else None


class Transport(BaseRequestHandler):  # type: ignore[misc] # the SDK has no types
    """Sends what endpoints have prepared, each within its time."""

    def __init__(self, pubnub: Any) -> None:
        self.pubnub = pubnub
        self._wire = Wire(pubnub.config.connections, tls=pubnub.config.ssl)
        self._connector = self._wire.connector
        self._deadlines = Deadlines()
        self._is_closed = False

    async def close_session(self) -> None:
        """Drop every connection, for good."""
        self._is_closed = True
        self._deadlines.stop()
        await self._wire.close()

    async def async_request(
        self, options_func: Callable[[], Any], _cancellation_event: object
    ) -> Any:
        """Send what an endpoint has prepared; the answer is its status's ``client_response``, whatever it says."""
        if self._is_closed:
            raise LostError("the client is closed")
        options, config = options_func(), self.pubnub.config
        options.merge_params_in({})
        url = build_url(
            config.scheme(), self.pubnub.base_origin, options.path, options.query_string
        )
        sending = self._wire.request(url, self.pubnub.headers, options.connect_timeout)
        response = await self._deadlines.keep(options.request_timeout, sending)
        told = ResponseInfo(response.status_code, config.ssl, None, None, None, None, response)
        return AsyncioEnvelope(
            None,
            options.create_status(PNStatusCategory.PNAcknowledgmentCategory, response, told, None),
        )
