"""A line of known latency on loopback, which counts its round trips and bytes.

The forwarder is this very file in a process of its own, with the standard library alone.
"""

import select
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import IO, Final

CHUNK: Final = 1 << 20
"""More than is ever under way: bandwidth is not throttled."""
SLACK_SECONDS: Final = 0.00005
"""How late Linux ends a wait, so that it can end others with it."""


@dataclass(frozen=True, slots=True)
class Traffic:
    """What a line has carried until now."""

    round_trips: int
    up: int
    """Bytes to the server."""
    down: int
    """Bytes to the client."""

    def since(self, earlier: "Traffic") -> "Traffic":
        """Return what was carried since then."""
        return Traffic(
            self.round_trips - earlier.round_trips,
            self.up - earlier.up,
            self.down - earlier.down,
        )


@dataclass(slots=True)
class Way:
    """One direction of one connection: pieces that were received, each with its time to be sent."""

    into: socket.socket
    is_upward: bool
    pieces: deque[tuple[float, bytes]] = field(default_factory=deque)


class Forwarder:
    """Carries bytes to a server and back, each piece so many seconds later, in one thread.

    A round trip begins where a client speaks that has been answered, or speaks for the first time.
    """

    def __init__(self, port: int, seconds: float) -> None:
        self._port, self._seconds = port, seconds
        self._door = socket.create_server(("127.0.0.1", 0))
        self._ways: dict[socket.socket, Way] = {}
        self._waiting: set[socket.socket] = set()
        self._round_trips = 0
        self._up = 0
        self._down = 0

    def run(self) -> None:
        """Print the port, then forward; print the traffic for each line of input."""
        _tell(self._door.getsockname()[1])
        while True:
            # select, and not asyncio, whose timers are whole milliseconds.
            ears: list[socket.socket | IO[str]] = [self._door, sys.stdin, *self._ways]
            ready, _, _ = select.select(ears, [], [], self._rest())
            self._deliver()
            for source in ready:
                if not isinstance(source, socket.socket):
                    if not source.readline():
                        return
                    _tell(self._round_trips, self._up, self._down)
                elif source is self._door:
                    self._open()
                elif source in self._ways:
                    self._listen(source)

    def _rest(self) -> float | None:
        due = [way.pieces[0][0] for way in self._ways.values() if way.pieces]
        return max(0.0, min(due) - SLACK_SECONDS - time.monotonic()) if due else None

    def _open(self) -> None:
        client, server = self._door.accept()[0], socket.create_connection(("127.0.0.1", self._port))
        for end in (client, server):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._ways |= {client: Way(server, is_upward=True), server: Way(client, is_upward=False)}

    def _listen(self, source: socket.socket) -> None:
        way = self._ways[source]
        try:
            heard = source.recv(CHUNK)
        except ConnectionError:
            heard = b""
        if not heard:
            self._close(source, way.into)
            return
        if way.is_upward and source not in self._waiting:
            self._waiting.add(source)
            self._round_trips += 1
        if way.is_upward:
            self._up += len(heard)
        else:
            self._down += len(heard)
        way.pieces.append((time.monotonic() + self._seconds, heard))

    def _deliver(self) -> None:
        now = time.monotonic() + SLACK_SECONDS
        for source, way in list(self._ways.items()):
            while source in self._ways and way.pieces and way.pieces[0][0] <= now:
                try:
                    way.into.sendall(way.pieces.popleft()[1])
                except ConnectionError:
                    self._close(source, way.into)
                if not way.is_upward:
                    self._waiting.discard(way.into)

    def _close(self, *ends: socket.socket) -> None:
        for end in ends:
            self._ways.pop(end, None)
            self._waiting.discard(end)
            end.close()


@dataclass(frozen=True, slots=True)
class Line:
    """The near end of a forwarder."""

    port: int
    _asking: IO[str]
    _told: IO[str]

    def round_trips(self) -> int:
        """Return how many were made until now."""
        return self.traffic().round_trips

    def traffic(self) -> Traffic:
        """Return what was carried until now."""
        self._asking.write("\n")
        self._asking.flush()
        round_trips, up, down = map(int, self._told.readline().split())
        return Traffic(round_trips, up, down)


@contextmanager
def line(port: int, seconds: float) -> Iterator[Line]:
    """Yield a line to a port; a round trip takes so many seconds, half of it each way."""
    command = [sys.executable, __file__, str(port), str(seconds / 2)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin
        assert process.stdout
        try:
            yield Line(int(process.stdout.readline()), process.stdin, process.stdout)
        finally:
            process.kill()


@contextmanager
def away(port: int, seconds: float, times: int = 100) -> Iterator[Line]:
    """Yield a line on which the quickest of so many PINGs takes so many seconds."""
    with line(port, 0) as no_way:
        # Forwarding takes some time by itself.
        distance = max(0.0, seconds - pings(no_way.port, times)[0])
    with line(port, distance) as far:
        yield far


def pings(port: int, times: int) -> list[float]:
    """Return the seconds of so many PINGs over a bare socket, the quickest first."""
    seconds = []
    with socket.create_connection(("127.0.0.1", port)) as asking:
        asking.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(times):
            began = time.perf_counter()
            asking.sendall(b"PING\r\n")
            asking.recv(CHUNK)
            seconds.append(time.perf_counter() - began)
    return sorted(seconds)


def _tell(*numbers: int) -> None:
    sys.stdout.write(" ".join(map(str, numbers)) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    Forwarder(int(sys.argv[1]), float(sys.argv[2])).run()
