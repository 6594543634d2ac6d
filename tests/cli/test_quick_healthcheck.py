"""A plain health check loads little, and answers like the whole command."""

import asyncio
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from tests.redis_server import free_port
from worker.cli.quick_healthcheck import address_of, run_quickly
from worker.telemetry.address import Address
from worker.web.pages import health_page
from worker.web.server import listening

MOST_CPU_SECONDS = 0.1
TRIES = 10


def cpu_seconds(*command: str) -> float:
    """Return the processor time of a process that fails to reach a worker."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = {**os.environ, "TALLY_HTTP": f"127.0.0.1:{free_port()}"}
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert (ran.returncode, "no worker answers" in ran.stdout) == (1, True), ran
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_a_health_check_is_cheap() -> None:
    """The best of some runs, because the machine may be busy."""
    command = (sys.executable, "-m", "worker", "healthcheck", "--live")

    assert min(cpu_seconds(*command) for _ in range(TRIES)) < MOST_CPU_SECONDS


def test_a_health_check_loads_no_settings() -> None:
    """Neither pydantic nor typer nor an event loop: that is why it is cheap."""
    code = (
        "import sys; from worker.cli.quick_healthcheck import run_quickly; "
        "run_quickly(['healthcheck']); "
        "print({'pydantic', 'typer', 'asyncio', 'structlog'} & sys.modules.keys())"
    )
    environment = {**os.environ, "TALLY_HTTP": f"127.0.0.1:{free_port()}"}
    ran = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )

    assert ran.stdout.splitlines()[-1] == "set()"


@pytest.mark.parametrize("command", [["healthcheck"], ["healthcheck", "--live"]])
@pytest.mark.parametrize(("problem", "code"), [(None, 0), ("Redis is\naway", 1)])
async def test_it_says_what_the_worker_says(
    command: list[str],
    problem: str | None,
    code: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One line for each check that fails, fit for a terminal."""

    async def page() -> object:
        return health_page({"redis": problem})

    pages = {"/readyz": page, "/livez": page}
    async with listening("127.0.0.1", 0, pages) as (host, port):  # type: ignore[arg-type] # pages are pages
        monkeypatch.setenv("TALLY_HTTP", f"{host}:{port}")
        assert await asyncio.to_thread(run_quickly, command) == code

    expected = "redis: Redis is\\naway\n" if problem else "ok\n"
    assert capsys.readouterr().out == expected


@pytest.mark.parametrize("text", ["off", "127.0.0.1:0", "nonsense:x"])
def test_what_it_cannot_tell_is_left_to_the_command(
    text: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A wrong address gets the sentence of the settings; so does a file with settings."""
    monkeypatch.chdir(tmp_path)
    assert address_of({"TALLY_HTTP": text}) is None
    assert address_of({}) == Address("127.0.0.1", 8080)
    assert address_of({"TALLY_HTTP": "9"}) == Address("127.0.0.1", 9)
    assert run_quickly(["healthcheck", "--help"]) is None
    assert address_of({"tally_http": "127.0.0.1:9"}) is None

    Path(".env").write_text("TALLY_HTTP=:9\n")
    assert address_of({}) is None
