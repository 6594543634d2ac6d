"""Servers of any make and configuration: the embedded Valkey, and an installed Redis."""

import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Final, Self

from tests.redis_server import ServerProcess
from worker.store.embedded import find_binary

DEPLOYED: Final = Path(__file__).parents[1] / "deploy" / "redis.conf"


def programs() -> dict[str, Path]:
    """Return name → program: the embedded Valkey, and this machine's ``redis-server``."""
    installed = shutil.which("redis-server")
    return {"Valkey": find_binary()} | ({"Redis": Path(installed)} if installed else {})


def version(program: Path) -> str:
    """Return the version of a server and its allocator; the memory it needs depends on both."""
    text = subprocess.check_output([program, "--version"], text=True)
    return " ".join(re.findall(r"(?<=v=)[0-9.]+|(?<=malloc=)\S+", text))


class ConfiguredServer:
    """One server on loopback, for a ``with`` block; its data is gone afterwards."""

    def __init__(self, program: Path, configuration: Path | None = None, **options: str) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="configured-")
        words = [
            word
            for name, value in options.items()
            for word in (f"--{name.replace('_', '-')}", value)
        ]
        command: list[str | Path] = [program, *([configuration] if configuration else []), *words]
        self._server = ServerProcess(command, Path(self._folder.name))
        self.url = self._server.url

    def __enter__(self) -> Self:
        try:
            self._server.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._server.kill()
        self._folder.cleanup()
