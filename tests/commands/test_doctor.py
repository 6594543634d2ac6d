"""``tally doctor`` tries what a worker needs, whatever hangs, and leaves nothing behind."""

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from tests.default_port import default_port_taken
from tests.redis_server import RedisServer
from tests.waiting import wait_until
from tests.worlds import World, open_world
from worker.errors import ExitCode
from worker.service import worker as service

PATIENCE_SECONDS: Final = 10


@pytest.fixture
async def world(valkey: RedisServer, real_redis: Any, tmp_path: Path) -> AsyncIterator[World]:
    """A world on an empty Redis."""
    async with open_world(valkey.url, tmp_path) as world:
        yield world


@asynccontextmanager
async def silent_port() -> AsyncIterator[int]:
    """Yield a port that takes connections, and never answers."""
    ends = asyncio.Event()

    async def wait(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await ends.wait()
        writer.close()

    server = await asyncio.start_server(wait, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        ends.set()
        server.close()


async def test_doctor_ends_soon_whatever_hangs(world: World) -> None:
    """PubNub and Redis take connections, and answer nothing."""
    async with silent_port() as port:
        began = time.monotonic()
        ended = await world.run_command(
            "doctor", PUBNUB_ORIGIN=f"127.0.0.1:{port}", REDIS_URL=f"redis://127.0.0.1:{port}"
        )
        seconds = time.monotonic() - began

    assert seconds < PATIENCE_SECONDS
    assert ended.code == ExitCode.PUBNUB_REFUSED
    assert "BAD  PubNub: no answer in 6 s" in ended.out
    assert f"BAD  Redis: Redis at 127.0.0.1:{port} does not answer in 4 s." in ended.out


async def test_doctor_ends_soon_if_only_writes_hang(world: World) -> None:
    """As while a failover is under way."""
    async with world.hanging_redis():
        ended = await world.run_command("doctor")

    assert ended.code == ExitCode.REDIS_UNFIT
    assert re.search(r"^ok   Redis: answers, (Valkey|Redis) \d", ended.out, re.MULTILINE)
    assert "BAD  Redis: Redis takes no writes now: it answers INFO" in ended.out


@pytest.mark.processes
async def test_doctor_leaves_no_folder_behind(world: World) -> None:
    """Without REDIS_URL it says what a worker would use, and tries it elsewhere."""
    before = set(world.folder.iterdir())

    ended = await world.run_command("doctor", REDIS_URL=None)

    assert ended.code == ExitCode.DONE, ended
    assert "ok   Redis: REDIS_URL is not set: the worker uses its own embedded Valkey" in ended.out
    assert f"with its data in {world.folder / '.tally'}." in ended.out
    assert "ok   Redis: namespace 'tally' is free" in ended.out
    assert set(world.folder.iterdir()) == before


@pytest.mark.processes
async def test_doctor_looks_into_the_folder_that_is_there(world: World) -> None:
    """The namespace there is another keyset's."""
    claimed = await world.run_command("backfill", REDIS_URL=None)

    ended = await world.run_command("doctor", REDIS_URL=None, PUBNUB_SUBSCRIBE_KEY="sub-c-other")

    assert claimed.code == ExitCode.DONE, claimed
    assert ended.code == ExitCode.PUBNUB_REFUSED
    assert "BAD  Redis: The namespace tally holds the tallies of another keyset" in ended.out


@pytest.mark.parametrize(
    ("setting", "text", "examined"),
    [
        ("TALLY_LOG_LEVEL", "loud", ["TALLY_HTTP", "PubNub", "Redis"]),
        ("TALLY_HTTP", "localhost:web", ["PubNub", "Redis"]),
        ("TALLY_SETTLE_SECONDS", "1e3", ["TALLY_HTTP", "PubNub", "Redis"]),
        ("TALLY_CHANNELS", '["room"]', ["TALLY_HTTP", "PubNub", "Redis"]),
        ("PUBNUB_AUTH_TOKEN_FILE", "/nowhere/at/all", ["TALLY_HTTP", "Redis"]),
    ],
)
async def test_a_malformed_setting_leaves_the_rest_to_be_examined(
    world: World, setting: str, text: str, examined: list[str]
) -> None:
    """It has its default, which says nothing: what depends on it is left out."""
    ended = await world.run_command("doctor", "--json", **{setting: text})

    first, *others = json.loads(ended.out)["checks"]
    assert (ended.code, ended.err) == (ExitCode.USAGE, "")
    assert (first["subject"], first["verdict"]) == ("Configuration", "bad")
    assert f"({setting}: environment)" in first["text"]
    assert "Nothing to follow" not in first["text"]
    assert list(dict.fromkeys(check["subject"] for check in others)) == examined
    assert {check["verdict"] for check in others} <= {"ok", "note"}


@pytest.mark.parametrize(
    ("setting", "line"),
    [("REDIS_URL_FILE", ""), ("TALLY_CHANELS", "TALLY_CHANNELS='room\n")],
)
async def test_no_other_redis_is_examined(world: World, setting: str, line: str) -> None:
    """The address cannot be read, or it may stand in a file that cannot."""
    (world.folder / ".env").write_text(line)
    settings = {setting: "/nowhere/at/all", "REDIS_URL": None}
    ended = await world.run_command("doctor", "--json", **settings)

    *_, last = json.loads(ended.out)["checks"]
    assert ended.code == ExitCode.USAGE
    assert last["subject"] == "Redis"
    assert last["text"] == "not examined: REDIS_URL or TALLY_NAMESPACE cannot be read."
    assert not (world.folder / ".tally").exists()


async def test_a_doctor_survives_a_wrong_namespace(world: World) -> None:
    """It says so twice, and examines PubNub only if the configuration is complete."""
    ended = await world.run_command("doctor", TALLY_NAMESPACE="a b")

    assert ended.code == ExitCode.USAGE
    assert "BAD  Configuration: TALLY_NAMESPACE is 'a b'" in ended.out
    assert "BAD  Redis: not examined: TALLY_NAMESPACE is wrong." in ended.out


async def test_doctor_knows_a_worker_that_runs_already(world: World) -> None:
    """It has the address. That is no failure."""
    async with world.run_worker() as worker:
        (entry,) = worker.entries("http_listens")
        ended = await world.run_command("doctor", TALLY_HTTP=str(entry["port"]))

    assert ended.code == ExitCode.DONE, ended
    assert "is in use: by a worker that runs already" in ended.out


async def test_doctor_does_not_call_a_taken_default_port_ok(world: World) -> None:
    """A worker would run, but without its pages."""
    async with default_port_taken():
        ended = await world.run_command("doctor", TALLY_HTTP=None)

    assert ended.code == ExitCode.DONE, ended
    assert "note TALLY_HTTP: cannot listen at 127.0.0.1:8080: Address already in use." in ended.out


async def test_doctor_names_unknown_settings(world: World) -> None:
    """They are no failure, but not simply ok."""
    ended = await world.run_command("doctor", TALLY_CHANELS="room", REDIS_HOST="localhost")

    assert ended.code == ExitCode.DONE, ended
    sentence = "TALLY_CHANELS (environment) is no setting; is TALLY_CHANNELS meant?"
    assert f"note Configuration: {sentence}" in ended.out
    assert "REDIS_HOST" not in ended.out  # REDIS_URL is set, so it is another program's


@pytest.mark.parametrize(
    ("settings", "finding"),
    [
        ({}, "on at 127.0.0.1:0/v1, for every program on this machine, without a token"),
        (
            {"TALLY_API_TOKEN": "a-canary-of-a-token", "TALLY_HTTP": "0.0.0.0:0"},
            "on at 0.0.0.0:0/v1, for whoever sends the token",
        ),
    ],
)
async def test_doctor_says_who_may_use_the_api(
    world: World, settings: dict[str, str], finding: str
) -> None:
    """It shows no token. Where the API is off, it says nothing of it."""
    off = await world.run_command("doctor")
    ended = await world.run_command("doctor", TALLY_API="on", **settings)

    assert f"ok   TALLY_API: {finding}" in ended.out
    assert "canary" not in ended.out
    assert "TALLY_API" not in off.out


async def test_doctor_refuses_an_open_api(world: World) -> None:
    """Others could read it."""
    ended = await world.run_command("doctor", TALLY_API="on", TALLY_HTTP="0.0.0.0:0")

    assert ended.code == ExitCode.USAGE
    assert "set TALLY_API_TOKEN or TALLY_API_TOKEN_FILE" in ended.out


async def test_doctor_knows_channels_that_nobody_follows(world: World) -> None:
    """One worker of two shards runs."""
    channels = ",".join(f"room-{number}" for number in range(10))
    world.settings["TALLY_CHANNELS"] = channels

    async def are_all_followed() -> bool:
        ended = await world.run_command("doctor")
        return ended.code == ExitCode.DONE and "Following" not in ended.out

    await world.follow(TALLY_SHARD="0/2")
    ended = await world.run_command("doctor")
    await world.follow(TALLY_SHARD="1/2")
    await wait_until(are_all_followed)

    assert ended.code == ExitCode.FAILED
    assert "BAD  Following: " in ended.out
    assert "of the 10 configured names, such as 'room-" in ended.out
    assert "nothing is counted there. Is each shard (TALLY_SHARD) running" in ended.out


async def test_doctor_says_that_no_worker_runs(world: World) -> None:
    """Before a first start, and after a stop. It is asked before each start, so that is a note."""
    before = await world.run_command("doctor")
    async with world.run_worker():
        await world.settles()
        running = await world.run_command("doctor")
    # It says so only when another worker would have given a sign of life.
    await world.redis.expire("tally:subscriptions", 86_340)
    stopped = await world.run_command("doctor")

    assert (before.code, running.code, stopped.code) == (ExitCode.DONE,) * 3
    assert "note Following: No worker runs, or ran in the last day." in before.out
    assert "Following" not in running.out
    assert "note Following: No worker runs: the last one gave a sign of life a minute ago." in (
        stopped.out
    )


async def test_a_start_follows_its_names_before_pubnub_answers(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also before its first heartbeat, which never comes here."""
    async with world.run_worker():
        await world.settles()
        ((key, _),) = (await world.cursors()).items()
    await world.redis.expire(key, 1000)
    world.state.set_outage("server_error", ["subscribe"])
    monkeypatch.setattr(service, "HEARTBEAT_SECONDS", 3600.0)
    settings = {"TALLY_SETTLE_SECONDS": "600"}
    polls = world.emulator.requests["subscribe"]

    async with world.commands().worker(**settings) as worker:
        await wait_until(
            lambda: world.emulator.requests["subscribe"] > polls, what=lambda: worker.err[-3000:]
        )
        ended = await world.run_command("doctor", **settings)

    assert "BAD  Following" not in ended.out
    assert ended.code == ExitCode.PUBNUB_REFUSED


async def test_doctor_knows_a_worker_that_pubnub_does_not_answer(world: World) -> None:
    """The worker is cut off, and doctor's machine is not. That is a note: a start looks so, too."""
    async with world.run_worker():
        await world.settles()
        ((key, _),) = (await world.cursors()).items()
        seconds, _ = await world.redis.time()
        await world.redis.hset(key, "saved_at", seconds - 3600)
        ended = await world.run_command("doctor")

    assert ended.code == ExitCode.DONE
    assert "note Following: A worker follows 1 of the 1 configured names" in ended.out
    assert "its last answer from PubNub came 60 minutes ago." in ended.out


async def test_an_outage_of_pubnub_leaves_no_name_without_a_worker(world: World) -> None:
    """Its cursors grow old, and the worker says that it follows them all the same."""
    world.settings["TALLY_SETTLE_SECONDS"] = "0.5"
    async with world.run_worker():
        await world.settles()
        ((key, _),) = (await world.cursors()).items()
        # As if the outage had begun long ago, and the worker now.
        await world.redis.expire(key, 1000)
        world.state.set_outage("server_error", ["subscribe"])

    async with world.commands().worker() as worker:

        async def is_followed() -> bool:
            return bool(await world.redis.ttl(key) > 1000)

        await wait_until(is_followed, what=lambda: worker.err[-3000:])
        ended = await world.run_command("doctor")

    assert "Following" not in ended.out
    assert ended.code == ExitCode.PUBNUB_REFUSED
