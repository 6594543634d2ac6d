"""One user of a chat, who reacts to messages with PubNub's SDK."""

import asyncio
import logging
from collections.abc import Sequence
from enum import StrEnum
from random import Random
from typing import Any, Final

from pubnub.models.consumer.message_actions import PNMessageAction
from pubnub.pnconfiguration import PNConfiguration
from pubnub.pubnub_asyncio import PubNubAsyncio
from pubnub.request_handlers.async_httpx import AsyncHttpxRequestHandler

from worker.demo.credentials import PUBLISH_KEY, Credentials

REMOVALS: Final = 0.25  # of all reactions
RECEIPTS: Final = 0.2  # of all additions
EMOJI: Final = ("👍", "❤️", "😂", "🎉", "😮", "🔥", "👀", "🙏")
TIMEOUT_SECONDS: Final = 10  # the SDK accepts whole numbers only

Place = tuple[str, str]
"""Channel and message timetoken."""
Reaction = tuple[str, str, str, str]
"""Channel, message timetoken, type, value."""


class Outcome(StrEnum):
    """How PubNub answered one reaction."""

    ADDED = "added"
    REMOVED = "removed"
    CONFLICT = "conflict"
    SILENT = "silent"
    GONE = "gone"
    FAILED = "failed"


IN_WORDS: Final = {
    Outcome.ADDED: "added",
    Outcome.REMOVED: "removed",
    Outcome.CONFLICT: "refused: there already",
    Outcome.SILENT: "stored without an event",
    Outcome.GONE: "refused: gone already",
    Outcome.FAILED: "failed",
}


ADDITION_ERRORS: Final = {207: Outcome.SILENT, 409: Outcome.CONFLICT}
REMOVAL_ERRORS: Final = {207: Outcome.SILENT, 400: Outcome.GONE}


class User:
    """Adds and removes reactions under one uuid, inside the running loop."""

    def __init__(
        self,
        origin: str,
        uuid: str,
        places: Sequence[Place],
        seed: str,
        credentials: Credentials,
    ) -> None:
        """Make a user; ``places`` has the most popular messages first."""
        self.random = Random(seed)  # noqa: S311 - repeatable, not secret
        self._places = places
        self._weights = [1 / rank for rank in range(1, len(places) + 1)]
        self._own: dict[Reaction, str] = {}
        _silence_logs()
        # Without the handler, PUBNUB_ASYNC_REQUEST_HANDLER would choose one.
        self._pubnub: Any = PubNubAsyncio(
            _configuration(origin, uuid, credentials.secret_key),
            custom_event_loop=asyncio.get_running_loop(),
            custom_request_handler=AsyncHttpxRequestHandler,
        )
        self._pubnub.set_token(credentials.token)

    async def close(self) -> None:
        """Close the connections."""
        await self._pubnub.close_session()

    async def act(self) -> Outcome:
        """Add a reaction, or remove one."""
        if self._own and self.random.random() < REMOVALS:
            reaction = self.random.choice(sorted(self._own))
            return await self._remove(reaction)
        return await self._add(self._new_reaction())

    def _new_reaction(self) -> Reaction:
        (place,) = self.random.choices(self._places, self._weights)
        channel, message = place
        if self.random.random() < RECEIPTS:
            return channel, message, "receipt", "read"
        weights = range(len(EMOJI), 0, -1)
        (emoji,) = self.random.choices(EMOJI, weights)
        return channel, message, "reaction", emoji

    async def _add(self, reaction: Reaction) -> Outcome:
        channel, message, type, value = reaction
        action = PNMessageAction()
        action.create(type=type, value=value, message_timetoken=message)
        reply = await _send(self._pubnub.add_message_action(channel, action))
        if reply.is_error():
            return ADDITION_ERRORS.get(_status(reply), Outcome.FAILED)
        self._own[reaction] = str(reply.result.action_timetoken)
        return Outcome.ADDED

    async def _remove(self, reaction: Reaction) -> Outcome:
        channel, message, _, _ = reaction
        timetoken = self._own[reaction]
        reply = await _send(self._pubnub.remove_message_action(channel, message, timetoken))
        outcome = Outcome.REMOVED
        if reply.is_error():
            outcome = REMOVAL_ERRORS.get(_status(reply), Outcome.FAILED)
        if outcome is not Outcome.FAILED:
            del self._own[reaction]
        return outcome


async def _send(request: Any) -> Any:
    """Return the SDK's envelope or error. A cancellation is raised."""
    reply = await request.future()
    task = asyncio.current_task()
    if task and task.cancelling():
        raise asyncio.CancelledError
    return reply


def _status(error: Any) -> int:
    status = getattr(error, "status", None)
    code = getattr(status, "status_code", None)
    return code if isinstance(code, int) else 0


def _configuration(
    origin: str,
    uuid: str,
    secret_key: str | None,
) -> Any:
    config = PNConfiguration("demo", PUBLISH_KEY)
    config.secret_key = secret_key
    config.user_id = uuid
    config.origin = origin
    config.ssl = False
    config.connect_timeout = TIMEOUT_SECONDS
    config.non_subscribe_request_timeout = TIMEOUT_SECONDS
    # Else the SDK opens an event loop and never closes it.
    config.enable_subscribe = False
    # Else the SDK warns of its own future.
    config.disable_config_locking = False
    return config


def _silence_logs() -> None:
    # Else the SDK and its HTTP client log each 409 as an error.
    for name in ("pubnub", "httpx", "httpcore", "hpack"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
