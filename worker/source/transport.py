"""The HTTP below the SDK: its requests are sent as they are.

The SDK accepts another transport (``custom_request_handler``). Its own one,
httpx, checks every connection at each request: too slow beside hundreds of
polls. aiohttp, which the SDK requires, too, does not.
HTTP/2 would keep the stream of a cancelled poll, so it is not used.
"""

import asyncio
from collections.abc import Callable, Iterator, Mapping
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

KEEPALIVE_SECONDS: Final = 5.0


class LostError(Exception):
    """There is no answer.

    The message has our own words. aiohttp's may contain the URL.
    """


@dataclass(frozen=True, slots=True)
class Response:
    """PubNub's answer, whatever its status."""

    status_code: int
    headers: Mapping[str, str]
    content: bytes


class Connections:
    """HTTP/1.1 connections, one for each request that is running."""

    def __init__(self, limit: int, *, tls: bool) -> None:
        self._free = asyncio.Semaphore(limit)
        # The SDK trusts the same certificates.
        trusted = httpx.create_ssl_context() if tls else False
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEPALIVE_SECONDS, ssl=trusted)
        no_cookies = aiohttp.DummyCookieJar()
        self._session = aiohttp.ClientSession(connector=connector, cookie_jar=no_cookies)

    async def close(self) -> None:
        """Close every connection, and lose the requests that are running."""
        await self._session.close()

    async def get(
        self,
        url: str,
        headers: Mapping[str, str],
        *,
        connect_seconds: float,
        seconds: float,
    ) -> Response:
        """Return the whole answer to one request.

        ``connect_seconds`` includes the lookup of the host's name.

        Raises:
            LostError: There is no answer within ``seconds``.
        """
        with _lost_errors():
            async with asyncio.timeout(seconds):
                await self._reserve(connect_seconds)
                try:
                    return await self._get(url, headers, connect_seconds)
                finally:
                    self._free.release()

    async def _get(
        self,
        url: str,
        headers: Mapping[str, str],
        connect_seconds: float,
    ) -> Response:
        # A redirect would hand the token to another host.
        request = self._session.get(
            URL(url, encoded=True),
            headers=headers,
            timeout=aiohttp.ClientTimeout(total=None, connect=connect_seconds),
            allow_redirects=False,
        )
        async with request as response:
            content = await response.read()
            return Response(response.status, response.headers, content)

    async def _reserve(self, seconds: float) -> None:
        limit = seconds if self._free.locked() else None
        try:
            async with asyncio.timeout(limit):
                await self._free.acquire()
        except TimeoutError:
            raise LostError("every connection of this client is in use") from None


@contextmanager
def _lost_errors() -> Iterator[None]:
    """Replace the errors of aiohttp by ``LostError``."""
    try:
        yield
    except aiohttp.ConnectionTimeoutError:
        raise LostError("no connection in time") from None
    except aiohttp.ClientConnectorCertificateError:
        raise LostError("no connection: the certificate is not to be trusted") from None
    except aiohttp.ClientConnectorError:
        raise LostError("no connection") from None
    except TimeoutError:
        raise LostError("no answer in time") from None
    except (aiohttp.ClientError, OSError):
        raise LostError("the connection broke before the answer was whole") from None


class Transport(BaseRequestHandler):  # type: ignore[misc] # the SDK has no types
    """Sends the requests that the SDK's endpoints have prepared."""

    def __init__(self, pubnub: Any) -> None:
        self.pubnub = pubnub
        self._connections = Connections(pubnub.config.connections, tls=pubnub.config.ssl)
        self._is_closed = False

    async def close_session(self) -> None:
        """Close every connection, for good."""
        self._is_closed = True
        await self._connections.close()

    async def async_request(
        self,
        options_func: Callable[[], Any],
        _cancellation_event: object,
    ) -> Any:
        """Send one prepared request.

        Returns:
            The SDK's envelope. Its ``status.client_response`` is the ``Response``.
        """
        if self._is_closed:
            raise LostError("the client is closed")
        config = self.pubnub.config
        options = options_func()
        options.merge_params_in({})
        url = build_url(
            config.scheme(), self.pubnub.base_origin, options.path, options.query_string
        )
        response = await self._connections.get(
            url,
            self.pubnub.headers,
            connect_seconds=options.connect_timeout,
            seconds=options.request_timeout,
        )
        info = ResponseInfo(response.status_code, config.ssl, None, None, None, None, response)
        category = PNStatusCategory.PNAcknowledgmentCategory
        status = options.create_status(category, response, info, None)
        return AsyncioEnvelope(None, status)
