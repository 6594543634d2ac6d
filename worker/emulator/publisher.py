"""Publishes events and messages of one keyset."""

import json
from json.encoder import encode_basestring_ascii as quote
from typing import Final
from zlib import crc32

from worker.emulator.actions import Action
from worker.emulator.cache import Message
from worker.emulator.faults import Fault, Faults
from worker.emulator.stream import Stream
from worker.emulator.timetokens import TICKS_PER_MILLISECOND

SHARD: Final = "5"


class Publisher:
    """Gives each message its position, publish time and envelope."""

    def __init__(self, stream: Stream, faults: Faults, subscribe_key: str) -> None:
        self.published = 0
        self._stream = stream
        self._faults = faults
        self._key = quote(subscribe_key)

    def event(self, event: str, channel: str, action: Action) -> None:
        """Publish an ``added`` or ``removed`` event."""
        position, published_at = self._times()
        body = self.event_body(event, channel, action, published_at)
        self._publish(channel, Message(position, body))

    def event_body(
        self,
        event: str,
        channel: str,
        action: Action,
        published_at: int,
    ) -> bytes:
        """Return the JSON of an event. The user stands beside its data."""
        uuid = action.identity.uuid
        head = f'"source":"actions","version":"1.0","event":"{event}"'
        data = f'{{{head},"data":{{{action.fields()}}}}}'
        return self._envelope('"e":3,', channel, uuid, published_at, data)

    def message(self, channel: str, payload: object, uuid: str) -> str:
        """Publish an ordinary message. Returns its timetoken."""
        position, published_at = self._times()
        data = json.dumps(payload)
        body = self._envelope("", channel, uuid, published_at, data)
        self._publish(channel, Message(position, body))
        return str(position)

    def inject(self, channel: str, body: bytes) -> None:
        """Deliver bytes verbatim, without faults."""
        position = self._stream.next_position()
        message = Message(position, body, verbatim=True)
        self._stream.deliver(channel, message)

    def _times(self) -> tuple[int, int]:
        """Return the position of a message, and when it is published."""
        position = self._stream.next_position()
        if not self._faults.strikes(Fault.AHEAD):
            return position, position

        milliseconds = self._faults.random.randint(10, 100)
        delay = milliseconds * TICKS_PER_MILLISECOND
        return position, position + delay

    def _envelope(
        self,
        mark: str,
        channel: str,
        uuid: str,
        published_at: int,
        data: str,
    ) -> bytes:
        # The region of a publisher is seldom that of the subscriber.
        user = uuid.encode(errors="replace")
        region = 41 + crc32(user) % 3
        return (
            f'{{"a":"{SHARD}","f":0,{mark}'
            f'"i":{quote(uuid)},'
            f'"p":{{"t":"{published_at}","r":{region}}},'
            f'"k":{self._key},"c":{quote(channel)},"d":{data}}}'
        ).encode()

    def _publish(self, channel: str, message: Message) -> None:
        self.published += 1
        self._stream.publish(channel, message)
