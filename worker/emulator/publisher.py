"""Publishes events and messages of one keyset."""

from worker.emulator.actions import Action
from worker.emulator.cache import Message
from worker.emulator.envelopes import Envelopes
from worker.emulator.faults import Fault, Faults
from worker.emulator.stream import Stream
from worker.emulator.timetokens import TICKS_PER_MILLISECOND


class Publisher:
    """Gives each message its position, its publish time and its envelope."""

    def __init__(self, stream: Stream, faults: Faults, envelopes: Envelopes) -> None:
        self.published = 0
        self._stream = stream
        self._faults = faults
        self._envelopes = envelopes

    def event(self, event: str, channel: str, action: Action) -> None:
        """Publish an ``added`` or ``removed`` event."""
        position = self._stream.next_position()
        at = self._publish_time(position)
        uuid = action.identity.uuid
        body = self._envelopes.action(event, channel, action, uuid, at)
        self._publish(channel, Message(position, body))

    def message(self, channel: str, payload: object, uuid: str, kind: int) -> str:
        """Publish a message or a signal. Returns its timetoken."""
        position = self._stream.next_position()
        at = self._publish_time(position)
        body = self._envelopes.message(kind, channel, payload, uuid, at)
        self._publish(channel, Message(position, body))
        return str(position)

    def inject(self, channel: str, body: bytes) -> None:
        """Deliver bytes verbatim, without faults."""
        position = self._stream.next_position()
        self._stream.deliver(channel, Message(position, body, verbatim=True))

    def _publish_time(self, position: int) -> int:
        if self._faults.strikes(Fault.AHEAD):
            milliseconds = self._faults.random.randint(10, 100)
            return position + milliseconds * TICKS_PER_MILLISECOND
        return position

    def _publish(self, channel: str, message: Message) -> None:
        self.published += 1
        self._stream.publish(channel, message)
