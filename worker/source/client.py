"""The one client of PubNub: typed answers and errors, working cancellation.

Requests use the SDK's endpoints and ``.future()``, never a listener.
"""

import asyncio
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self, TypeVar

from pubnub.pubnub_asyncio import PubNubAsyncio

from worker.domain.position import Cursor, Timetoken
from worker.errors import ConfigurationError, ForbiddenError, PubNubError
from worker.source import endpoints
from worker.source.access_token import CurrentToken
from worker.source.answers import (
    Answer,
    Page,
    read_answer,
    read_channels,
    read_page,
    read_time,
)
from worker.source.endpoints import Keyset
from worker.source.failures import failure, shortened
from worker.source.route import Route
from worker.source.transport import LostError, Transport, send
from worker.telemetry import metrics

__all__ = ["OPERATIONS", "Answer", "Client", "Keyset", "Page", "Reader", "Result"]

OPERATIONS: Final = {
    endpoints.Poll: "subscribe",
    endpoints.Actions: "message_actions",
    endpoints.Group: "group_channels",
    endpoints.Clock: "time",
}
"""The name of each request in the metrics."""
_UNSENDABLE: Final = re.compile(r"\.{0,2}|.*[\ud800-\udfff].*", re.DOTALL)

Result = TypeVar("Result")
Reader = Callable[[str, bytes], Result]
"""Reads the body of an answer to the request of this name."""


@dataclass(slots=True)
class Contact:
    """What all requests together tell of PubNub."""

    has_answered: bool = False
    """Whether PubNub has given a request what it asked for, since the start."""
    problem: str = ""
    """Why the newest request failed; empty if it did not."""


class Client:
    """PubNub for one keyset. Make and close it inside the running loop.

    Every request can be cancelled, and raises:

    - ``ThrottledError`` for a 429, ``ForbiddenError`` for a 403,
    - ``PubNubError`` for every other failure,
    - ``ConfigurationError`` for a name that cannot be sent.
    """

    def __init__(
        self,
        keyset: Keyset,
        renew: Callable[[], str | None] = lambda: None,
    ) -> None:
        """Prepare, without a connection.

        ``renew`` returns the current access token. It is called in a
        thread when PubNub refuses the token that was sent.
        """
        endpoints.silence()
        self._keyset = keyset
        self.route = Route.to(keyset.origin, tls=keyset.tls)
        self._pubnub = PubNubAsyncio(
            endpoints.configuration(keyset, self.route),
            custom_event_loop=asyncio.get_running_loop(),
            subscription_manager=endpoints.NoSubscriptions,
            custom_request_handler=Transport,
        )
        self.contact = Contact()
        self.token = CurrentToken(renew, self._pubnub.set_token)
        self.token.use(keyset.auth_token)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close every connection. Running requests fail."""
        await self._pubnub.close_session()

    async def subscribe(
        self,
        channels: Sequence[str],
        groups: Sequence[str],
        cursor: Cursor,
    ) -> Answer:
        """Wait for the messages after the cursor.

        Returns up to 100 messages, or none after about 280 seconds.
        """
        request = "subscribe"
        if not channels and not groups:
            raise ConfigurationError(f"{request}: name at least one channel or channel group.")
        poll = endpoints.Poll(self._pubnub)
        poll.channels(_sendable(channels))
        poll.channel_groups(_sendable(groups))
        poll.timetoken(cursor.timetoken)
        if cursor.region:
            poll.region(cursor.region)
        return await self._ask(request, poll, read_answer)

    async def message_actions(
        self,
        channel: str,
        *,
        start: Timetoken | None = None,
        end: Timetoken | None = None,
        limit: int = 100,
    ) -> Page:
        """Return the newest ``limit`` actions of a channel.

        ``start`` is the newer bound and exclusive.
        ``end`` is the older bound and inclusive.
        """
        request = f"message actions of {shortened(channel)!r}"
        (name,) = _sendable([channel])
        endpoint = endpoints.Actions(self._pubnub, name, start, end, str(limit))
        return await self._ask(request, endpoint, read_page)

    async def group_channels(self, group: str) -> tuple[str, ...]:
        """Return the channels of a channel group, in PubNub's order."""
        request = f"channels of group {shortened(group)!r}"
        (name,) = _sendable([group])
        endpoint = endpoints.Group(self._pubnub, name)
        return await self._ask(request, endpoint, read_channels)

    async def time(self) -> Timetoken:
        """Return the time of PubNub's clock."""
        return await self._ask("time", endpoints.Clock(self._pubnub), read_time)

    async def _ask(
        self,
        request: str,
        endpoint: Any,
        read: Reader[Result],
    ) -> Result:
        """Send a request, once more if a refused token is replaced."""
        token = self.token.text
        try:
            return await self._send(request, endpoint, read)
        except ForbiddenError:
            if not await self.token.has_replaced(token):
                raise
            return await self._send(request, endpoint, read)

    async def _send(
        self,
        request: str,
        endpoint: Any,
        read: Reader[Result],
    ) -> Result:
        try:
            result = await self._exchange(request, endpoint, read)
        except PubNubError as error:
            self.contact.problem = str(error)
            raise
        self.contact.has_answered = True
        self.contact.problem = ""
        return result

    async def _exchange(
        self,
        request: str,
        endpoint: Any,
        read: Reader[Result],
    ) -> Result:
        count = metrics.request_count
        operation = OPERATIONS[type(endpoint)]
        try:
            response = await send(endpoint)
        except LostError as error:
            count(operation, "none").inc()
            sentence = error.cause.sentence(self.route, request)
            raise PubNubError(sentence) from None
        count(operation, str(response.status_code)).inc()
        if response.status_code == 200:
            try:
                return read(request, response.content)
            except ValueError:
                pass  # the failure below says so
        keyset = self._keyset
        keys = (keyset.secret_key, keyset.publish_key, keyset.subscribe_key)
        secrets = (*keys, keyset.auth_token, self.token.text)
        raise failure(
            request,
            response,
            secrets,
            self.route.if_foreign,
            token_advice=self.token.advice(keyset.user_id),
        )


def _sendable(names: Iterable[str]) -> list[str]:
    """Return the names of channels or groups that a URL can carry.

    ``..`` would change the path. A lone surrogate has no bytes.
    """
    sendable = list(names)
    refused = list(filter(_UNSENDABLE.fullmatch, sendable))
    if refused:
        name = shortened(refused[0])
        raise ConfigurationError(f"PubNub cannot be asked about a channel or group named {name!r}.")
    return sendable
