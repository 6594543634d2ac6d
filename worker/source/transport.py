"""The way to the wire and back: what the SDK has built and signed is sent, and comes back untouched.

The SDK takes a transport of one's own (``custom_request_handler``). Its httpx looks at every connection at each
request, which polls by the hundred cannot afford, and takes longer to bring an answer than its JSON takes to read;
aiohttp, which the SDK requires, too, does neither. Not HTTP/2: a cancelled poll must free what it held, see the traps.
"""

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
import httpx
from pubnub.enums import PNStatusCategory
from pubnub.models.envelopes import AsyncioEnvelope
from pubnub.request_handlers.async_httpx import AsyncHttpxRequestHandler
from pubnub.structures import ResponseInfo
from pubnub.utils import build_url
from yarl import URL

__all__ = ["LostError", "Response", "Transport"]


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
        self._session = aiohttp.ClientSession(connector=self.connector, cookie_jar=aiohttp.DummyCookieJar())

    async def close(self) -> None:
        """Drop every connection; requests under way are lost."""
        await self._session.close()

    async def request(self, url: str, headers: Mapping[str, str], connect_seconds: float) -> Response:
        """Ask, and return the whole answer.

        Raises:
            LostError: there is none.
        """
        patience = aiohttp.ClientTimeout(total=None, sock_connect=connect_seconds)
        await self._enter(connect_seconds)
        try:
            with _in_our_words():
                sent = self._session.get(URL(url, encoded=True), headers=headers, timeout=patience)
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
    except aiohttp.ClientConnectorError:
        raise LostError("no connection") from None
    except (aiohttp.ClientError, OSError):
        raise LostError("the connection broke before the answer was whole") from None


class Transport(AsyncHttpxRequestHandler):  # type: ignore[misc] # the SDK has no types
    """Has requests sent by a wire of ours, within the SDK's deadline, which notices that a machine was suspended."""

    def __init__(self, pubnub: Any) -> None:  # not super().__init__, which would build a transport to throw away
        self.pubnub = pubnub
        self._session = Wire(pubnub.config.connections, tls=pubnub.config.ssl)
        self._connector = self._session.connector
        self._is_closed = False

    async def close_session(self) -> None:
        """Drop every connection, for good."""
        self._is_closed = True
        await self._session.close()

    async def async_request(self, options_func: Callable[[], Any], _cancellation_event: object) -> Any:
        """Send what an endpoint has prepared; the answer is its status's ``client_response``, whatever it says."""
        if self._is_closed:
            raise LostError("the client is closed")
        options, config = options_func(), self.pubnub.config
        options.merge_params_in({})
        url = build_url(config.scheme(), self.pubnub.base_origin, options.path, options.query_string)
        asked = {"url": url, "headers": self.pubnub.headers, "connect_seconds": options.connect_timeout}
        response = await self._request_with_wall_clock_deadline(asked, options.request_timeout)
        told = ResponseInfo(response.status_code, config.ssl, None, None, None, None, response)
        return AsyncioEnvelope(
            None, options.create_status(PNStatusCategory.PNAcknowledgmentCategory, response, told, None)
        )
