"""A line of known latency on loopback, which counts its round trips.

The forwarder is this very file in a process of its own, with the standard library alone.
"""

import queue
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import IO, Final

CHUNK: Final = 1 << 20
"""More than is ever under way: bandwidth is not limited."""
SLACK_SECONDS: Final = 0.00005
"""How late Linux ends a sleep."""


class Connection:
    """One connection through the forwarder.

    A round trip begins when the client sends its first bytes, or the first after an answer.
    """

    def __init__(self, client: socket.socket, server: socket.socket, seconds: float) -> None:
        self._seconds = seconds
        self._is_waiting = False
        self.round_trips = 0
        for end in (client, server):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._carry(client, server, on_receive=self._asked, on_send=lambda: None)
        self._carry(server, client, on_receive=lambda: None, on_send=self._answered)

    def _asked(self) -> None:
        self.round_trips += not self._is_waiting
        self._is_waiting = True

    def _answered(self) -> None:
        self._is_waiting = False

    def _carry(
        self,
        source: socket.socket,
        target: socket.socket,
        on_receive: Callable[[], None],
        on_send: Callable[[], None],
    ) -> None:
        """Carry bytes one way, each piece so many seconds later, in two threads."""
        pieces: queue.SimpleQueue[tuple[float, bytes]] = queue.SimpleQueue()

        def receive() -> None:
            with suppress(OSError):
                while piece := source.recv(CHUNK):
                    on_receive()
                    pieces.put((time.monotonic() + self._seconds, piece))
            pieces.put((0, b""))

        def send() -> None:
            with suppress(OSError):
                while True:
                    due, piece = pieces.get()
                    if not piece:
                        break
                    time.sleep(max(0.0, due - SLACK_SECONDS - time.monotonic()))
                    target.sendall(piece)
                    on_send()
            target.close()

        for work in (receive, send):
            threading.Thread(target=work, daemon=True).start()


def forward(port: int, seconds: float) -> None:
    """Print the port to connect to, then the round trips for each line of input."""
    door = socket.create_server(("127.0.0.1", 0))
    connections: list[Connection] = []

    def accept() -> None:
        while True:
            client, _ = door.accept()
            server = socket.create_connection(("127.0.0.1", port))
            connections.append(Connection(client, server, seconds))

    threading.Thread(target=accept, daemon=True).start()
    _say(door.getsockname()[1])
    for _ in sys.stdin:
        _say(sum(connection.round_trips for connection in connections))


def _say(number: int) -> None:
    sys.stdout.write(f"{number}\n")
    sys.stdout.flush()


@dataclass(frozen=True, slots=True)
class Line:
    """The near end of a forwarder."""

    port: int
    _orders: IO[str]
    _answers: IO[str]

    def round_trips(self) -> int:
        """Return the number of round trips until now."""
        self._orders.write("\n")
        self._orders.flush()
        return int(self._answers.readline())


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


if __name__ == "__main__":
    forward(int(sys.argv[1]), float(sys.argv[2]))
