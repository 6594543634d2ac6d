"""The HTTP below the SDK, and requests that are sent through both.

The SDK accepts another transport (``custom_request_handler``). Its own one,
httpx, checks every connection at each request: too slow beside hundreds of
polls. aiohttp, which the SDK requires, too, does not.
HTTP/2 would keep the stream of a cancelled poll, so it is not used.
"""

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, TypeVar

import aiohttp
import httpx
from pubnub.enums import PNStatusCategory
from pubnub.models.envelopes import AsyncioEnvelope
from pubnub.request_handlers.base import BaseRequestHandler
from pubnub.structures import ResponseInfo
from pubnub.utils import build_url
from yarl import URL

from worker.source.backoff import elapsed_clock
from worker.source.causes import Cause, cause_of, proxy_refusal

if TYPE_CHECKING:
    from worker.source.route import Route

KEEPALIVE_SECONDS: Final = 5.0
CHECK_SECONDS: Final = 5.0
"""How soon after the machine wakes up an overdue request ends."""

Result = TypeVar("Result")


class LostError(Exception):
    """There is no answer. The cause has our own words, and no URL."""

    def __init__(self, cause: Cause) -> None:
        super().__init__(cause.words)
        self.cause = cause


@dataclass(frozen=True, slots=True)
class Response:
    """PubNub's answer, whatever its status."""

    status_code: int
    headers: Mapping[str, str]
    content: bytes


async def send(endpoint: Any) -> Response:
    """Send one request of the SDK, and return its answer.

    Raises:
        LostError: There is no answer.
    """
    before = _cancellations()
    try:
        reply = await endpoint.future()
    except Exception as error:  # the SDK's own error paths can fail, too
        reply = error
    status = getattr(reply, "status", None)
    if getattr(status, "category", None) == PNStatusCategory.PNCancelledCategory:
        before = 0  # the task was cancelled before it sent the request
    if _cancellations() > before:
        raise asyncio.CancelledError
    response: Response | None = getattr(status, "client_response", None)
    if response is None:
        raise _lost(reply, status)
    return response


def _cancellations() -> int:
    task = asyncio.current_task()
    return task.cancelling() if task else 0


def _lost(reply: object, status: object) -> LostError:
    """Return why there is no answer, without the SDK's own words."""
    data = getattr(status, "error_data", None)
    error = getattr(data, "exception", reply)
    if isinstance(error, LostError):
        return error
    return LostError(Cause(f"no answer ({type(error).__name__})"))


class Deadlines:
    """Timeouts that also count the time while the machine sleeps.

    The clock of the loop stands still then. A poll whose connection
    died in the meantime would hang for minutes.
    """

    def __init__(self) -> None:
        self._ends: dict[asyncio.Timeout, float] = {}
        self._check: asyncio.TimerHandle | None = None

    async def within(self, seconds: float, work: Coroutine[None, None, Result]) -> Result:
        """Return the result of work; cancel it after so many seconds.

        Raises:
            TimeoutError: It took longer.
        """
        async with asyncio.timeout(seconds) as timeout:
            self._ends[timeout] = elapsed_clock() + seconds
            self._check_later()
            try:
                return await work
            finally:
                del self._ends[timeout]

    def _check_later(self) -> None:
        if self._check is None and self._ends:
            loop = asyncio.get_running_loop()
            self._check = loop.call_later(CHECK_SECONDS, self._end_overdue)

    def _end_overdue(self) -> None:
        self._check = None
        now = elapsed_clock()
        for timeout, end in self._ends.items():
            if now > end and not timeout.expired():
                timeout.reschedule(asyncio.get_running_loop().time())
        self._check_later()


@dataclass(slots=True)
class Passage:
    """Whether a request has a tunnel through the proxy yet."""

    is_open: bool = False


def _tunnels() -> aiohttp.TraceConfig:
    """Return what notes on the passage of a request that its tunnel stands."""
    trace = aiohttp.TraceConfig()

    async def note(_session: object, context: Any, _parameters: object) -> None:
        context.trace_request_ctx.is_open = True

    trace.on_connection_create_end.append(note)
    trace.on_connection_reuseconn.append(note)
    return trace


class Transport(BaseRequestHandler):  # type: ignore[misc] # the SDK has no types
    """Sends each request on an HTTP/1.1 connection of its own."""

    def __init__(self, pubnub: Any) -> None:
        self.pubnub = pubnub
        self._route: Route = pubnub.config.route
        self._deadlines = Deadlines()
        # The SDK trusts the same certificates.
        trusted = httpx.create_ssl_context() if pubnub.config.ssl else False
        is_tunnelled = self._route.proxy and self._route.tls
        self._session = aiohttp.ClientSession(
            trace_configs=[_tunnels()] if is_tunnelled else [],
            connector=aiohttp.TCPConnector(
                limit=0,  # a pool would let polls starve other polls, and history
                keepalive_timeout=KEEPALIVE_SECONDS,
                ssl=trusted,
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    async def close_session(self) -> None:
        """Close every connection, with the requests that are running."""
        await self._session.close()

    async def async_request(self, options_func: Callable[[], Any], _event: object) -> Any:
        """Return the SDK's envelope, with our ``Response`` in its status."""
        if self._session.closed:
            raise LostError(Cause("the client is closed"))
        config = self.pubnub.config
        options = options_func()
        options.merge_params_in({})
        url = build_url(
            config.scheme(),
            self.pubnub.base_origin,
            options.path,
            options.query_string,
        )
        passage = Passage()
        request = self._get(url, options.connect_timeout, passage)
        try:
            response = await self._deadlines.within(options.request_timeout, request)
        except (aiohttp.ClientError, OSError) as error:
            cause = cause_of(error, self._route, is_tunnelled=passage.is_open)
            raise LostError(cause) from None
        info = ResponseInfo(response.status_code, config.ssl, None, None, None, None, response)
        category = PNStatusCategory.PNAcknowledgmentCategory
        status = options.create_status(category, response, info, None)
        return AsyncioEnvelope(None, status)

    async def _get(
        self,
        url: str,
        connect_seconds: float,
        passage: Passage,
    ) -> Response:
        request = self._session.get(
            URL(url, encoded=True),
            headers=self._headers,
            timeout=aiohttp.ClientTimeout(total=None, connect=connect_seconds),
            allow_redirects=False,  # a redirect would hand the token to another host
            trace_request_ctx=passage,
            **self._proxy_options,
        )
        async with request as response:
            self._check_proxy(response.status)
            content = await response.read()
            return Response(response.status, response.headers, content)

    @property
    def _headers(self) -> dict[str, str]:
        proxy = self._route.proxy
        if proxy is None or self._route.tls:
            return dict(self.pubnub.headers)
        # Without a tunnel the proxy reads the headers of the request itself.
        return {**self.pubnub.headers, **proxy.headers}

    @property
    def _proxy_options(self) -> dict[str, Any]:
        proxy = self._route.proxy
        if proxy is None:
            return {}
        return {"proxy": proxy.url, "proxy_headers": proxy.headers}

    def _check_proxy(self, status: int) -> None:
        """Make sure that PubNub answers. Only a proxy says 407.

        Raises:
            LostError: The proxy wants a user and a password.
        """
        if self._route.proxy and status == HTTPStatus.PROXY_AUTHENTICATION_REQUIRED:
            raise LostError(proxy_refusal(status, self._route))
