"""The end of the access token: in the doctor, on the status page, and as a metric."""

import re
import time
from pathlib import Path

import aiohttp
import pytest

from tests.source.tokens import access_token
from tests.waiting import wait_until
from tests.worlds import World
from worker.service import worker as service
from worker.source.access_token import UNKNOWN

DAY_MINUTES = 1440


async def test_a_new_token_in_the_file_is_used_soon(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PubNub has refused nothing yet. Page and metric say when the new one ends."""
    monkeypatch.setattr(service, "TOKEN_SECONDS", 0.01)
    old, new = (access_token(minutes, time.time()) for minutes in (60, 12 * DAY_MINUTES))
    file = tmp_path / "token"
    file.write_text(old, "utf-8")
    world.state.demand_token(old)

    async with world.run_worker(PUBNUB_AUTH_TOKEN_FILE=str(file)) as worker:
        (at,) = worker.entries("http_listens")
        async with aiohttp.ClientSession(f"http://{at['host']}:{at['port']}") as http:
            shown = await (await http.get("/status")).json()
            assert 3000 < shown["token"]["seconds_left"] <= 3600
            assert re.match(r"ends in 5\d minutes \(", shown["token"]["says"])

            file.write_text(new, "utf-8")
            await wait_until(lambda: worker.entries("token_renewed"), what=lambda: worker.err)

            shown = await (await http.get("/status")).json()
            measured = await (await http.get("/metrics")).text()
    assert shown["token"]["says"].startswith("ends in 11 days (")
    (line,) = [
        line
        for line in measured.splitlines()
        if line.startswith("tally_token_expires_timestamp_seconds ")
    ]
    assert abs(float(line.split()[1]) - time.time() - 12 * 86_400) < 600
    assert "canary" not in worker.err


async def test_a_worker_without_a_token_shows_none(world: World) -> None:
    """The status page has ``null``."""
    async with world.run_worker() as worker:
        (at,) = worker.entries("http_listens")
        async with aiohttp.ClientSession(f"http://{at['host']}:{at['port']}") as http:
            assert (await (await http.get("/status")).json())["token"] is None


@pytest.mark.parametrize(
    ("minutes", "code", "line"),
    [
        (12 * DAY_MINUTES + 60, 0, "ok   Token: ends in 12 days ("),
        (-60, 3, "BAD  Token: The access token has ended"),
        (None, 0, f"note Token: {UNKNOWN}"),
    ],
    ids=["good", "ended", "unreadable"],
)
async def test_a_doctor_says_when_the_token_ends(
    world: World, minutes: int | None, code: int, line: str
) -> None:
    """A token that has ended is exit code 3, with what to do. It is never shown."""
    token = "canary"
    if minutes is not None:
        token = access_token(180, time.time() + 60 * (minutes - 180))
    doctor = await world.run_command("doctor", PUBNUB_AUTH_TOKEN=token)

    assert doctor.code == code, doctor.out
    assert line in doctor.out
    assert ("Make a new one" in doctor.out) == (code == 3)
    assert token not in doctor.out + doctor.err


async def test_a_doctor_without_a_token_does_not_speak_of_one(world: World) -> None:
    """Not every keyset has Access Manager."""
    assert "Token" not in (await world.run_command("doctor")).out
