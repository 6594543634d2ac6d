"""The one client of PubNub: typed answers, typed errors, cancellation that works.

Everything goes through the SDK's endpoints and ``.future()``, never through a listener. An answer comes back in one
piece and checked for its shape; whatever else happens leaves as a ``PubNubError`` whose sentence says what was asked
and what came back, without keys, token, signature or URL. The SDK is bent into shape in ``endpoints``.
"""

import asyncio
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self
from urllib.parse import quote

import structlog
from pubnub.enums import PNStatusCategory
from pubnub.pubnub_asyncio import PubNubAsyncio

from worker.domain.position import HANDSHAKE, Cursor, Timetoken
from worker.errors import ConfigurationError, ForbiddenError, PubNubError, ThrottledError
from worker.source.endpoints import (
    Actions,
    Clock,
    Group,
    Keyset,
    NoSubscriptions,
    Poll,
    configuration,
    silence,
)
from worker.source.lenient_json import decode
from worker.source.transport import LostError, Response, Transport
from worker.telemetry import metrics

__all__ = ["OPERATIONS", "Answer", "Client", "Keyset", "Page"]

RENEW_SECONDS: Final = 1.0
LONGEST_RETRY_SECONDS: Final = 600.0
"""A Retry-After that asks for more is asked again: a slip of somebody's must not silence a worker for years."""
OPERATIONS: Final = {
    Poll: "subscribe",
    Actions: "message_actions",
    Group: "group_channels",
    Clock: "time",
}
_SHOWN: Final = 200  # characters of PubNub's own words in a sentence of ours
_DIGITS: Final = re.compile(r"(?=0*[1-9])[0-9]{1,20}", re.ASCII)
_SECONDS: Final = re.compile(r"\s*([0-9]{1,9}(?:\.[0-9]{1,9})?)\s*", re.ASCII)
_SURROGATE: Final = re.compile(r"[\ud800-\udfff]")
_UNPRINTABLE: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+")
_SECRET_LOOKING: Final = re.compile(r"\w+://\S*|\S*(?:auth|signature)=\S*|[\w.~%+/=-]{32,}")

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer to a poll: the next cursor, verbatim, and the messages as decoded JSON, not looked into."""

    cursor: Cursor
    messages: tuple[object, ...]


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a channel's actions, ascending, as decoded JSON; ``more_start`` is where PubNub says to go on."""

    actions: tuple[object, ...]
    more_start: str | None


class Client:
    """PubNub for one keyset; make it inside the running loop, close it there.

    Raises ``ThrottledError`` (429), ``ForbiddenError`` (403) or ``PubNubError`` (all else, 200s of the wrong shape
    among it) from every request, and ``ConfigurationError`` for what cannot be sent faithfully. Cancelling works.
    """

    def __init__(
        self,
        keyset: Keyset,
        *,
        connections: int = 500,
        renew: Callable[[], str | None] | None = None,
    ) -> None:
        """Prepare, without a connection.

        ``connections`` bounds the polls and requests under way at once; ``renew`` returns the access token as it is
        now, and is asked (in a thread) when PubNub refuses the one that was sent.
        """
        _check(keyset)
        self._renew = renew
        self._renew_at = 0.0
        self._renewing = asyncio.Lock()
        silence()
        self._keyset = keyset
        self._pubnub = PubNubAsyncio(
            configuration(keyset, connections),
            custom_event_loop=asyncio.get_running_loop(),
            subscription_manager=NoSubscriptions,
            custom_request_handler=Transport,
        )
        self.use_token(keyset.auth_token)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def use_token(self, token: str | None) -> None:
        """Send this access token with all later requests; a poll under way keeps the one it began with."""
        self._token = token
        self._pubnub.set_token(token)

    async def close(self) -> None:
        """Drop every connection; requests under way end with a ``PubNubError``."""
        await self._pubnub.close_session()

    async def subscribe(
        self, channels: Sequence[str], groups: Sequence[str], cursor: Cursor
    ) -> Answer:
        """Wait for what comes after the cursor: up to 100 messages, or none after about 280 seconds."""
        asked = f"subscribe ({len(channels)} channels, {len(groups)} groups)"
        if not channels and not groups:
            raise ConfigurationError(f"{asked}: name at least one channel or channel group.")
        poll = Poll(self._pubnub).channels(_faithful(channels)).channel_groups(_faithful(groups))
        poll.timetoken(cursor.timetoken)
        if cursor.timetoken != HANDSHAKE.timetoken and cursor.region:
            poll.region(cursor.region)
        return _answer(asked, await self._ask(asked, poll))

    async def message_actions(
        self,
        channel: str,
        *,
        start: Timetoken | None = None,
        end: Timetoken | None = None,
        limit: int = 100,
    ) -> Page:
        """Return the newest ``limit`` actions before ``start`` (exclusive), back to ``end`` (inclusive)."""
        asked = f"message actions of {_bounded(channel)!r}"
        (name,) = _faithful([channel])
        return _page(
            asked, await self._ask(asked, Actions(self._pubnub, name, start, end, str(limit)))
        )

    async def group_channels(self, group: str) -> tuple[str, ...]:
        """Return the names of the channels in a channel group, in PubNub's order."""
        asked = f"channels of group {_bounded(group)!r}"
        (name,) = _faithful([group])
        return _channels(asked, await self._ask(asked, Group(self._pubnub, name)))

    async def time(self) -> Timetoken:
        """Return PubNub's own clock."""
        body = await self._ask("time", Clock(self._pubnub))
        if isinstance(body, list) and body and (now := _digits(body[0])):
            return now
        raise _odd("time", "no timetoken")

    async def _ask(self, asked: str, endpoint: Any) -> object:
        """Return the decoded body of an answer; refused, ask once more if there is another token by now."""
        sent = self._token
        try:
            return await self._send(asked, endpoint)
        except ForbiddenError:
            if not await self._has_other_token(sent):
                raise
            return await self._send(asked, endpoint)

    async def _has_other_token(self, sent: str | None) -> bool:
        """Tell whether there is another one than was sent; look for it once a second, however many were refused."""
        async with self._renewing:
            now = asyncio.get_running_loop().time()
            if self._renew and self._token == sent and now >= self._renew_at:
                self._renew_at = now + RENEW_SECONDS
                token = await asyncio.to_thread(self._renew)
                if token and token != sent:
                    log.info("token_renewed")
                    self.use_token(token)
        return self._token != sent

    async def _send(self, asked: str, endpoint: Any) -> object:
        """Send one request and return its decoded body, after the two things the SDK gets wrong.

        It returns errors instead of raising them, and swallows cancellation; what PubNub says has not been judged yet.
        """
        reply = await _uncancelled(endpoint)
        response = getattr(getattr(reply, "status", None), "client_response", None)
        status = str(response.status_code) if response else "none"
        metrics.pubnub_requests.labels(OPERATIONS[type(endpoint)], status).inc()
        if response is None:
            raise PubNubError(f"PubNub, {asked}: {_lost(reply)}.")
        body = _decoded(response)
        if response.status_code == 200 and not isinstance(body, ValueError):
            return body
        raise self._refusal(asked, response, body)

    def _refusal(self, asked: str, response: Response, body: object) -> PubNubError:
        """Return the error that says what PubNub answered instead."""
        status, words = response.status_code, self._words(body)
        sentence = f"PubNub, {asked}: answered {status}{words and ', '}{words}."
        if status == 429:
            seconds = _SECONDS.fullmatch(response.headers.get("Retry-After", ""))
            return ThrottledError(
                sentence,
                retry_after=min(float(seconds[1]), LONGEST_RETRY_SECONDS) if seconds else None,
            )
        if status == 403:
            payload = _object(_object(body).get("payload"))
            groups = (name.removeprefix(":") for name in _names(payload.get("channel-groups")))
            return ForbiddenError(
                sentence,
                channels=frozenset(_names(payload.get("channels"))),
                groups=frozenset(groups),
            )
        return PubNubError(sentence, status=status)

    def _words(self, body: object) -> str:
        """Return what PubNub said, fit for a log: short, printable, nothing that was or looks like a secret."""
        if isinstance(body, ValueError):
            return "not JSON"
        error = _object(body).get("error")
        said = (
            _object(error).get("message"),
            _object(body).get("message"),
            _object(body).get("error_message"),
            error,
        )
        words = next((text for text in said if isinstance(text, str)), "")
        keys = self._keyset
        for secret in (
            keys.secret_key,
            keys.publish_key,
            keys.subscribe_key,
            keys.auth_token,
            self._token,
        ):
            for spelled in (secret, quote(secret, safe="")) if secret else ():
                words = words.replace(spelled, "…")
        return _bounded(_SECRET_LOOKING.sub("…", words)).rstrip(". ")


def _check(keyset: Keyset) -> None:
    """Refuse a keyset the SDK would stumble over later; the sentence names the settings."""
    if not keyset.subscribe_key.strip():
        raise ConfigurationError(
            "PUBNUB_SUBSCRIBE_KEY is empty: set it to the keyset's subscribe key."
        )
    if not keyset.user_id.strip():
        raise ConfigurationError("PUBNUB_USER_ID is empty: give this worker a user id.")
    if keyset.secret_key and not keyset.publish_key:
        raise ConfigurationError(
            "PUBNUB_SECRET_KEY needs PUBNUB_PUBLISH_KEY: requests are signed with both."
        )


def _faithful(names: Iterable[str]) -> list[str]:
    """Return the names, or refuse one whose URL would mean something else: dots alone collapse the path."""
    for name in (names := list(names)):
        if name in {"", ".", ".."} or _SURROGATE.search(name):
            raise ConfigurationError(
                f"PubNub cannot be asked about a channel or group named {_bounded(name)!r}."
            )
    return names


async def _uncancelled(endpoint: Any) -> object:
    """Return what ``.future()`` returns or, very rarely, raises; cancelled, be cancelled."""
    task = asyncio.current_task()
    before = task.cancelling() if task else 0
    try:
        reply = await endpoint.future()
    except (
        Exception
    ) as error:  # its error paths build the request a second time, outside their own try
        reply = error
    if _category(reply) == PNStatusCategory.PNCancelledCategory:
        before = 0  # cancelled before it was asked
    if task and task.cancelling() > before:
        raise asyncio.CancelledError
    return reply


def _category(reply: object) -> object:
    return getattr(getattr(reply, "status", None), "category", None)


def _lost(reply: object) -> str:
    """Say why there is no answer, in our own words: the SDK's may carry the URL."""
    if _category(reply) == PNStatusCategory.PNTimeoutCategory:
        return "no answer in time"
    data = getattr(getattr(reply, "status", None), "error_data", None)
    cause = getattr(data, "exception", reply)
    return str(cause) if isinstance(cause, LostError) else f"no answer ({type(cause).__name__})"


def _decoded(response: Response) -> object:
    """Return the body as JSON, or a ValueError (returned, so that the status still speaks)."""
    try:
        return decode(response.content)
    except ValueError:
        return ValueError("not JSON")


def _answer(asked: str, body: object) -> Answer:
    place, messages = _object(body).get("t"), _object(body).get("m")
    timetoken, region = _digits(_object(place).get("t")), _object(place).get("r", 0)
    if timetoken is None or not isinstance(region, int) or isinstance(region, bool):
        raise _odd(asked, "no cursor")
    if not isinstance(messages, list):
        raise _odd(asked, "no list of messages")
    return Answer(Cursor(timetoken, region), tuple(messages))


def _page(asked: str, body: object) -> Page:
    answer = _object(body)
    actions, more = answer.get("data"), answer.get("more")
    if not isinstance(actions, list) or answer.get("error") or answer.get("status", 200) != 200:
        raise _odd(asked, "no list of actions")
    start = _digits(_object(more).get("start"))
    if more is not None and start is None:
        raise _odd(asked, "a `more` without its start")
    return Page(tuple(actions), start)


def _channels(asked: str, body: object) -> tuple[str, ...]:
    names = _object(_object(body).get("payload")).get("channels")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise _odd(asked, "no list of channels")
    return tuple(names)


def _odd(asked: str, what: str) -> PubNubError:
    return PubNubError(f"PubNub, {asked}: answered 200 with {what} in it.", status=200)


def _object(value: object) -> Mapping[str, object]:
    """Return a JSON object, or an empty one in place of anything else."""
    return value if isinstance(value, dict) else {}


def _names(value: object) -> list[str]:
    """Return the strings of a JSON list, or a lone string; nothing of anything else."""
    values = value if isinstance(value, list) else [value]
    return [name for name in values if isinstance(name, str)]


def _digits(value: object) -> str | None:
    """Return a timetoken's digits, from text or from an integer; None for anything else, and for zero."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    return value if isinstance(value, str) and _DIGITS.fullmatch(value) else None


def _bounded(text: str) -> str:
    text = _UNPRINTABLE.sub(" ", text)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"
