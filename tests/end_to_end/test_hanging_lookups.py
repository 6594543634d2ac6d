"""A name server that does not answer keeps no command from its end."""

from pathlib import Path
from typing import Final

import pytest

from tests.worlds import World
from worker.errors import ExitCode

pytestmark = pytest.mark.processes
HANGING: Final = "hangs.test"
HANGS_SECONDS: Final = 120
ENDS_SECONDS: Final = 60
"""Ten are promised. A busy machine may take longer, but the lookup does not end by then."""
PATCH: Final = f"""
import socket, time

look_up = socket.getaddrinfo

def look_up_slowly(host, *arguments, **options):
    if host == {HANGING!r}:
        time.sleep({HANGS_SECONDS})
    return look_up(host, *arguments, **options)

socket.getaddrinfo = look_up_slowly
"""


@pytest.fixture
def patched(tmp_path: Path) -> dict[str, str]:
    """Return settings with which Python looks up one host very slowly."""
    folder = tmp_path / "patch"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(PATCH)
    return {"PYTHONPATH": f"{Path.cwd()}:{folder}"}


async def test_doctor_ends_soon_if_lookups_hang(world: World, patched: dict[str, str]) -> None:
    """The whole process, with its threads. Nobody looks up PubNub's name, nor Redis's."""
    origin, url = f"{HANGING}:80", f"redis://{HANGING}/0"

    doctor = world.start("doctor", **patched, PUBNUB_ORIGIN=origin, REDIS_URL=url)

    assert await doctor.ended(ENDS_SECONDS) == ExitCode.PUBNUB_REFUSED
    assert "BAD  PubNub: no answer in 6 s" in doctor.out
    assert f"BAD  Redis: Redis at {HANGING}:6379 does not answer in 4 s." in doctor.out
    assert doctor.err == ""


async def test_top_ends_soon_if_a_lookup_hangs(world: World, patched: dict[str, str]) -> None:
    """Nor does what explains the failure keep it: it looks up the name once more."""
    url = f"redis://{HANGING}/0?socket_connect_timeout=0.2"

    top = world.start("top", "room", **patched, REDIS_URL=url)

    assert await top.ended(ENDS_SECONDS) == ExitCode.REDIS_UNFIT
    assert "Redis does not answer (Timeout connecting to server)" in top.err


async def test_a_worker_stops_while_a_lookup_hangs(world: World, patched: dict[str, str]) -> None:
    """Its supervisor would kill it after a while."""
    worker = world.start("run", **patched, PUBNUB_ORIGIN=f"{HANGING}:80")
    await worker.logs("http_listens")

    assert await worker.stopped(ENDS_SECONDS) == ExitCode.DONE
