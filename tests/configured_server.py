"""Servers of any make, with a configuration of any kind: the embedded Valkey, and a Redis where there is one."""

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
    """Return name → program: the embedded Valkey, and whatever ``redis-server`` this machine has."""
    installed = shutil.which("redis-server")
    return {"Valkey": find_binary()} | ({"Redis": Path(installed)} if installed else {})


def version(program: Path) -> str:
    """Return the version of a server, and its allocator, on which what it holds depends."""
    told = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
    return " ".join(re.findall(r"(?<=v=)[0-9.]+|(?<=malloc=)\S+", told))


class ConfiguredServer:
    """One server on loopback for as long as its ``with`` block lasts; its data is gone afterwards."""

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
