"""A PubNub that only answers polls, in a process of its own; `loopback.py` gives the orders.

    python -m tests.benchmarks.answering KIND < orders

``replay`` has every answer ready, by cursor. ``publish`` sends events at a steady rate, each with
the present as its timetoken. It needs only the standard library, so it starts at once.
"""

import asyncio
import re
import sys
import time
from bisect import bisect_right
from collections.abc import Sequence
from typing import Any, Final
from urllib.parse import unquote

from tests.benchmarks.probes import stamp

FIRST: Final = 17_600_000_000_000_000
ANSWER: Final = 99
"""Events in one answer: a hundred would be a gap."""
STAMP: Final = b"*"
"""The placeholder of a timetoken in an event to be published."""
_CURSOR: Final = slice(len(b'{"t":{"t":"'), len(b'{"t":{"t":"') + 17)
_ASKED: Final = re.compile(rb"GET (/[^? ]*)(?:\?(?:[^ ]*&)?tt=([0-9]+)|\?)?")
_NAMES: Final = 4  # /v2/subscribe/<key>/<names>/0


class Connection(asyncio.Protocol):
    """One keep-alive connection with one request at a time."""

    def __init__(self, service: "Replay | Publisher") -> None:
        self._service = service
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport for answers."""
        self._transport: Any = transport

    def data_received(self, data: bytes) -> None:
        """Answer when the request is whole; none has a body."""
        self._received += data
        if not self._received.endswith(b"\r\n\r\n"):
            return
        asked, self._received = _ASKED.match(self._received), b""
        assert asked
        path, cursor = asked[1].decode(), int(asked[2] or 0)
        if path.startswith("/v2/subscribe/"):
            self._service.poll(self, path.split("/")[_NAMES], cursor)
        elif path == "/time/0":
            self.answer(b"[%d]" % stamp())
        else:
            self.answer(b'{"status":200,"data":[]}')

    def connection_lost(self, _: Exception | None) -> None:
        """Forget its poll."""
        self._service.forget(self)

    def answer(self, body: bytes) -> None:
        """Send it."""
        head = (
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
            % len(body)
        )
        self._transport.write(head + body)


class Replay:
    """Gives each cursor the answer that follows it; after the last one, none.

    With a rate, so many answers a second.
    """

    def __init__(self, rate: float | None, answers: Sequence[bytes]) -> None:
        self._rate = rate
        self._began: float | None = None
        self._answers: dict[int, tuple[int, bytes]] = {}
        cursor = FIRST
        for number, body in enumerate(answers):
            self._answers[cursor] = number, body
            cursor = int(body[_CURSOR])

    def poll(self, connection: Connection, _names: str, cursor: int) -> None:
        """Answer at once, or when it is time, or never."""
        if cursor == 0:
            connection.answer(b'{"t":{"t":"%d","r":1},"m":[]}' % FIRST)
            return
        if cursor not in self._answers:
            return
        number, body = self._answers[cursor]
        if self._rate is None:
            connection.answer(body)
            return
        loop = asyncio.get_running_loop()
        self._began = self._began or loop.time()
        loop.call_at(self._began + number / self._rate, connection.answer, body)

    def forget(self, connection: Connection) -> None:
        """No poll is kept."""


class Publisher:
    """Publishes events at a steady rate to the subscriptions of their channels."""

    def __init__(self, events: Sequence[bytes]) -> None:
        self._events = [
            (line[: line.index(b"\t")].decode(), line[line.index(b"\t") + 1 :]) for line in events
        ]
        self._names: dict[str, str] = {}
        self._sent: dict[str, tuple[list[int], list[bytes]]] = {}
        self._waiting: dict[str, tuple[Connection, int]] = {}
        self._last = 0

    def poll(self, connection: Connection, names: str, cursor: int) -> None:
        """Answer with what came after the cursor, or when something does."""
        if names not in self._sent:
            self._sent[names] = ([], [])
            self._names.update((unquote(name), names) for name in names.split(","))
        if cursor == 0:
            connection.answer(b'{"t":{"t":"%d","r":1},"m":[]}' % stamp())
            return
        self._waiting[names] = connection, cursor
        self._deliver(names)

    def forget(self, connection: Connection) -> None:
        """Drop the poll of a closed connection."""
        polls = self._waiting.items()
        self._waiting = {names: poll for names, poll in polls if poll[0] is not connection}

    async def wait_for(self, polls: int) -> None:
        """Return when so many polls wait."""
        while len(self._waiting) < polls:  # noqa: ASYNC110 - no event tells
            await asyncio.sleep(0.01)

    async def publish(self, rate: float, events: int) -> None:
        """Publish the first so many events, so many a second."""
        began = time.monotonic()
        for number, (channel, event) in enumerate(self._events[:events]):
            while (early := began + number / rate - time.monotonic()) > 0:  # noqa: ASYNC110 - it is the rate
                await asyncio.sleep(early)
            self._last = max(stamp(), self._last + 1)
            names = self._names[channel]
            stamps, messages = self._sent[names]
            stamps.append(self._last)
            messages.append(event.replace(STAMP, b"%d" % self._last))
            self._deliver(names)

    def _deliver(self, names: str) -> None:
        if names not in self._waiting:
            return
        connection, cursor = self._waiting[names]
        stamps, messages = self._sent[names]
        start = bisect_right(stamps, cursor)
        if part := messages[start : start + ANSWER]:
            del self._waiting[names]
            place = b'{"t":{"t":"%d","r":1},"m":[' % stamps[start + len(part) - 1]
            connection.answer(place + b",".join(part) + b"]}")


async def main(kind: str) -> None:
    """Read what to serve, print the port, and follow orders until the input ends."""
    lines = [line.rstrip(b"\n") for line in iter(sys.stdin.buffer.readline, b"\n")]
    service = Replay(float(lines[0]) or None, lines[1:]) if kind == "replay" else Publisher(lines)
    server = await asyncio.get_running_loop().create_server(
        lambda: Connection(service), "127.0.0.1", 0, backlog=512
    )
    say(server.sockets[0].getsockname()[1])
    while order := await asyncio.to_thread(sys.stdin.readline):
        verb, *numbers = order.split()
        assert isinstance(service, Publisher)
        if verb == "wait":
            await service.wait_for(int(numbers[0]))
        else:
            await service.publish(float(numbers[0]), int(numbers[1]))
        say("done")


def say(what: object) -> None:
    """Answer an order."""
    sys.stdout.write(f"{what}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
