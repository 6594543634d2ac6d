"""The one client of PubNub: typed answers, typed errors, working cancellation.

Requests use the SDK's endpoints and ``.future()``, never a listener.
"""

import asyncio
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, Self

from pubnub.pubnub_asyncio import PubNubAsyncio

from worker.domain.position import Cursor, Timetoken
from worker.errors import ConfigurationError, ForbiddenError, PubNubError
from worker.source.access_token import AccessToken
from worker.source.answers import (
    Answer,
    Page,
    read_answer,
    read_channels,
    read_page,
    read_time,
)
from worker.source.endpoints import (
    Actions,
    Clock,
    Group,
    NoSubscriptions,
    Poll,
    configuration,
    silence,
)
from worker.source.failures import failure, shortened
from worker.source.keyset import Keyset, check
from worker.source.lenient_json import decode
from worker.source.sending import send
from worker.source.transport import LostError, Transport
from worker.telemetry import metrics

__all__ = ["OPERATIONS", "Answer", "Client", "Keyset", "Page"]

OPERATIONS: Final = {
    Poll: "subscribe",
    Actions: "message_actions",
    Group: "group_channels",
    Clock: "time",
}
"""The name of each request in the metrics."""
_UNSENDABLE: Final = re.compile(r"\.{0,2}|.*[\ud800-\udfff].*", re.DOTALL)


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
        *,
        connections: int = 500,
        renew: Callable[[], str | None] | None = None,
    ) -> None:
        """Prepare, without a connection.

        ``connections`` is the number of requests that can run at once.
        ``renew`` returns the current access token. It is called in a
        thread when PubNub refuses the token that was sent.
        """
        check(keyset)
        silence()
        self._keyset = keyset
        self._pubnub = PubNubAsyncio(
            configuration(keyset, connections),
            custom_event_loop=asyncio.get_running_loop(),
            subscription_manager=NoSubscriptions,
            custom_request_handler=Transport,
        )
        self._token = AccessToken(self._pubnub, keyset.auth_token, renew)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def use_token(self, token: str | None) -> None:
        """Send this access token with all later requests.

        A poll that is running keeps the token it began with.
        """
        self._token.use(token)

    async def close(self) -> None:
        """Close every connection.

        Requests that are running end with a ``PubNubError``.
        """
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
        request = f"subscribe ({len(channels)} channels, {len(groups)} groups)"
        if not channels and not groups:
            raise ConfigurationError(f"{request}: name at least one channel or channel group.")
        poll = Poll(self._pubnub)
        poll.channels(_sendable(channels))
        poll.channel_groups(_sendable(groups))
        poll.timetoken(cursor.timetoken)
        if cursor.region:
            poll.region(cursor.region)
        body = await self._ask(request, poll)
        return read_answer(request, body)

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
        endpoint = Actions(self._pubnub, name, start, end, str(limit))
        body = await self._ask(request, endpoint)
        return read_page(request, body)

    async def group_channels(self, group: str) -> tuple[str, ...]:
        """Return the channels of a channel group, in PubNub's order."""
        request = f"channels of group {shortened(group)!r}"
        (name,) = _sendable([group])
        body = await self._ask(request, Group(self._pubnub, name))
        return read_channels(request, body)

    async def time(self) -> Timetoken:
        """Return the time of PubNub's clock."""
        body = await self._ask("time", Clock(self._pubnub))
        return read_time("time", body)

    async def _ask(self, request: str, endpoint: Any) -> object:
        """Return the decoded body of an answer.

        A refused request is sent once more if there is a newer token.
        """
        token = self._token.value
        try:
            return await self._send(request, endpoint)
        except ForbiddenError:
            if not await self._token.replaces(token):
                raise
            return await self._send(request, endpoint)

    async def _send(self, request: str, endpoint: Any) -> object:
        count = metrics.pubnub_requests.labels
        operation = OPERATIONS[type(endpoint)]
        try:
            response = await send(endpoint)
        except LostError as error:
            count(operation, "none").inc()
            raise PubNubError(f"PubNub, {request}: {error}.") from None
        count(operation, str(response.status_code)).inc()
        if response.status_code == 200:
            try:
                return decode(response.content)
            except ValueError:
                pass  # the failure below says so
        raise failure(request, response, self._secrets())

    def _secrets(self) -> tuple[str | None, ...]:
        keyset = self._keyset
        return (
            keyset.secret_key,
            keyset.publish_key,
            keyset.subscribe_key,
            keyset.auth_token,
            self._token.value,
        )


def _sendable(names: Iterable[str]) -> list[str]:
    """Return the names of channels or groups that a URL can carry.

    ``..`` would change the path. A lone surrogate has no bytes.
    """
    sendable = list(names)
    for name in sendable:
        if _UNSENDABLE.fullmatch(name):
            raise ConfigurationError(
                f"PubNub cannot be asked about a channel or group named {shortened(name)!r}."
            )
    return sendable
