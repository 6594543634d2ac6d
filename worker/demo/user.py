"""One user of a chat, who reacts to messages as applications do: through PubNub's SDK."""

import asyncio
import logging
from collections.abc import Sequence
from enum import StrEnum
from itertools import accumulate
from random import Random
from typing import Any, Final

from pubnub.models.consumer.message_actions import PNMessageAction
from pubnub.pnconfiguration import PNConfiguration
from pubnub.pubnub_asyncio import PubNubAsyncio
from pubnub.request_handlers.async_httpx import AsyncHttpxRequestHandler

from worker.demo.cancellation import heed_cancellation

REMOVALS: Final = 0.25
LOOKS: Final = 0.2
"""Of the removals, how many look the action up in the history first instead of trusting to memory."""
RECEIPTS: Final = 0.2
EMOJI: Final = ("👍", "❤️", "😂", "🎉", "😮", "🔥", "👀", "🙏")

Place = tuple[str, str]
"""Channel and message timetoken."""
Reaction = tuple[str, str, str, str]
"""Channel, message timetoken, type, value."""


class Outcome(StrEnum):
    """What became of one thing a person did."""

    ADDED = "added"
    REMOVED = "removed"
    CONFLICT = "conflict"
    """409: the reaction is there already."""
    SILENT = "silent"
    """207: done, but nobody is told."""
    GONE = "gone"
    """400 on a removal: it is no longer there."""
    FAILED = "failed"


class User:
    """Adds and removes reactions under one uuid. Make it inside the running loop, and let it leave there."""

    def __init__(self, origin: str, uuid: str, places: Sequence[Place], random: Random) -> None:
        """Prepare; ``places`` come with the most popular first, whatever their order in time."""
        _silence()
        self.uuid = uuid
        self._places = places
        self._popularity = list(accumulate(1 / rank for rank in range(1, len(places) + 1)))
        self._random = random
        self._own: dict[Reaction, str] = {}
        # Named here, the transport is the SDK's own whatever PUBNUB_ASYNC_REQUEST_HANDLER says.
        self._pubnub: Any = PubNubAsyncio(
            _configuration(origin, uuid),
            custom_event_loop=asyncio.get_running_loop(),
            custom_request_handler=AsyncHttpxRequestHandler,
        )

    async def arrive(self) -> None:
        """Read the history of every channel, as an application does when it opens."""
        for channel in sorted({channel for channel, _ in self._places}):
            await self._look(channel)

    async def leave(self) -> None:
        """Close the connections."""
        await self._pubnub.close_session()

    async def act(self) -> Outcome:
        """Add a reaction, or take one back."""
        if self._random.random() < REMOVALS:
            if self._random.random() < LOOKS:
                await self._look(self._random.choice(self._places)[0])
            if self._own:
                return await self._remove(self._random.choice(sorted(self._own)))
        return await self._add(self._choice())

    def _choice(self) -> Reaction:
        channel, message = self._random.choices(self._places, cum_weights=self._popularity)[0]
        if self._random.random() < RECEIPTS:
            return channel, message, "receipt", "read"
        return (
            channel,
            message,
            "reaction",
            self._random.choices(EMOJI, range(len(EMOJI), 0, -1))[0],
        )

    async def _add(self, reaction: Reaction) -> Outcome:
        channel, message, type, value = reaction
        action = PNMessageAction().create(type=type, value=value, message_timetoken=message)
        envelope = await _asked(
            self._pubnub.add_message_action().channel(channel).message_action(action)
        )
        if not envelope.is_error():
            self._own[reaction] = str(envelope.result.action_timetoken)
            return Outcome.ADDED
        return {207: Outcome.SILENT, 409: Outcome.CONFLICT}.get(_status(envelope), Outcome.FAILED)

    async def _remove(self, reaction: Reaction) -> Outcome:
        channel, message, _, _ = reaction
        request = self._pubnub.remove_message_action().channel(channel).message_timetoken(message)
        envelope = await _asked(request.action_timetoken(self._own[reaction]))
        deed = Outcome.REMOVED
        if envelope.is_error():
            deed = {207: Outcome.SILENT, 400: Outcome.GONE}.get(_status(envelope), Outcome.FAILED)
        if deed is not Outcome.FAILED:
            del self._own[reaction]
        return deed

    async def _look(self, channel: str) -> None:
        """Learn from the channel's newest actions which are one's own: those answered 207 or 409 among them."""
        envelope = await _asked(self._pubnub.get_message_actions().channel(channel))
        if envelope.is_error():
            return
        for action in envelope.result.actions:
            if action.uuid == self.uuid:
                reaction = (channel, str(action.message_timetoken), action.type, action.value)
                self._own[reaction] = str(action.action_timetoken)


async def _asked(request: Any) -> Any:
    """Return what the SDK returns: an envelope or an error. It swallows cancellation; here it counts."""
    reply = await request.future()
    heed_cancellation()
    return reply


def _status(error: Any) -> int:
    """Return the HTTP status of an error; 0 where there was no answer, or the SDK has lost it."""
    status = getattr(getattr(error, "status", None), "status_code", None)
    return status if isinstance(status, int) else 0


def _configuration(origin: str, uuid: str) -> Any:
    config = PNConfiguration()
    config.subscribe_key, config.publish_key, config.user_id = "demo", "demo", uuid
    config.origin, config.ssl = origin, False
    config.connect_timeout = config.non_subscribe_request_timeout = (
        10  # the SDK asserts that these are integers
    )
    config.enable_subscribe = (
        False  # nobody here listens; the SDK would open an event loop that it never closes
    )
    config.disable_config_locking = False  # the SDK warns of its own future otherwise
    return config


def _silence() -> None:
    """Keep the SDK and its HTTP client off the terminal: they complain there of every 409."""
    for name in ("pubnub", "httpx", "httpcore", "hpack"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
