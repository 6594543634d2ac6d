"""``tally emulator`` as a process: what it prints can be used as it is."""

import asyncio
import json
import os
import shutil
import subprocess
from pathlib import Path
from urllib.request import ProxyHandler, build_opener

import pytest

from tests.processes import Child
from tests.waiting import WAIT_SECONDS, wait_until

pytestmark = pytest.mark.processes


@pytest.mark.skipif(not shutil.which("curl"), reason="needs curl")
async def test_the_line_that_the_emulator_prints_reacts(tmp_path: Path) -> None:
    """Pasted into a shell; once more, it is refused as PubNub refuses it.

    It reacts in the keyset of the settings: a worker with another key would see nothing.
    """
    emulator = Child(tmp_path, 0, ["emulator", "--port", "0"], {})
    try:
        await wait_until(lambda: emulator.out.count("\n") == 2, what=emulator.tail)
        settings, line = emulator.out.splitlines()
        origin = settings.split()[0].removeprefix("PUBNUB_ORIGIN=")

        added, refused = json.loads(await shell(line)), json.loads(await shell(line))
        truth = await asyncio.to_thread(read, f"http://{origin}/emulator/truth")
    finally:
        assert await emulator.stopped() == 0

    assert (added["status"], added["data"]["uuid"]) == (200, "ana")
    assert refused["status"] == 409
    key = settings.split()[2].removeprefix("PUBNUB_SUBSCRIBE_KEY=")
    assert f"/message-actions/{key}/" in line
    message = added["data"]["messageTimetoken"]
    assert json.loads(truth)["channels"] == {"room": {message: {"reaction": {"👍": 1}}}}


@pytest.mark.skipif(not shutil.which("curl"), reason="needs curl")
async def test_with_access_manager_the_line_has_a_token(tmp_path: Path) -> None:
    """And the settings have the keys that sign. Without the token, the line is refused."""
    emulator = Child(tmp_path, 0, ["emulator", "--port", "0", "--access-manager"], {})
    try:
        await wait_until(lambda: emulator.out.count("\n") == 2, what=emulator.tail)
        settings, line = emulator.out.splitlines()
        refused = json.loads(await shell(line.partition("&auth=")[0] + "'"))
        added = json.loads(await shell(line))
    finally:
        assert await emulator.stopped() == 0

    assert settings.split()[2:] == [
        *("PUBNUB_SUBSCRIBE_KEY=demo", "PUBNUB_PUBLISH_KEY=demo"),
        "PUBNUB_SECRET_KEY=sec-c-demo",
    ]
    assert (refused["status"], added["status"]) == (403, 200)


async def shell(line: str) -> bytes:
    """Return what a line prints in a shell that has no proxy."""
    process = await asyncio.create_subprocess_shell(
        line,
        env={**os.environ, "no_proxy": "*"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    said, complaint = await process.communicate()
    assert process.returncode == 0, complaint
    return said


def read(url: str) -> bytes:
    """Return a page, asked for without a proxy."""
    with build_opener(ProxyHandler({})).open(url, timeout=WAIT_SECONDS) as page:
        return bytes(page.read())
