"""Servers of any make, with a configuration of any kind: the embedded Valkey, and a Redis where there is one."""

import re
import shutil
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Final, Self

import redis

from tests.redis_server import free_port
from worker.store.embedded import find_binary

DEPLOYED: Final = Path(__file__).parents[1] / "deploy" / "redis.conf"
START_SECONDS: Final = 20


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
        port = free_port()
        self.url = f"redis://127.0.0.1:{port}"
        own = {"port": str(port), "bind": "127.0.0.1", "dir": self._folder.name, **options}
        words = [word for name, value in own.items() for word in (f"--{name.replace('_', '-')}", value)]
        self._command = [str(program), *([str(configuration)] if configuration else []), *words]
        self._log = Path(self._folder.name, "log")

    def __enter__(self) -> Self:
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log)
        deadline = time.monotonic() + START_SECONDS
        with redis.Redis.from_url(self.url) as client:
            while self._process.poll() is None and time.monotonic() < deadline:
                with suppress(redis.ConnectionError):
                    if client.ping():
                        return self
                time.sleep(0.01)
        self.__exit__()
        raise RuntimeError(f"it does not start: {self.said}")

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        self.said = self._log.read_text(errors="replace")
        self._folder.cleanup()
