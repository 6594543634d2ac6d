"""Every row of ``deploy/situations.md`` is what the program says, does and logs."""

from collections.abc import AsyncIterator
from itertools import filterfalse
from operator import attrgetter
from pathlib import Path
from typing import Final

import pytest
from redis.asyncio import Redis

from tests.processes import Child
from tests.redis_server import RedisServer
from tests.situations import (
    stages_pubnub,
    stages_redis,
    stages_running,
    stages_settings,
    stages_users,
)
from tests.situations.staging import STAGES, redis_of
from tests.situations.table import Row, is_said, read_rows
from tests.waiting import wait_until
from tests.worlds import KEYS, World, open_world
from worker.errors import ExitCode

ROWS: Final = list(read_rows())
STAGED: Final = (stages_settings, stages_redis, stages_users, stages_pubnub, stages_running)
"""Each registers its stages when it is loaded."""
MACHINES: Final = ("http_proxy", "https_proxy", "no_proxy", "ssl_cert_file", "ssl_cert_dir")
"""Variables of this machine that would change the way to PubNub."""


@pytest.fixture
async def world(
    valkey: RedisServer, real_redis: Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[World]:
    """A world on an empty Redis, whose users are the tests'; no repair falls into a test."""
    for name in MACHINES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    async with open_world(valkey.url, tmp_path) as world:
        world.settings["TALLY_SETTLE_SECONDS"] = "600"
        yield world
        if world.settings.get("REDIS_URL") is None:
            # A worker that is killed leaves its embedded Valkey behind.
            await stop_all(world)


async def stop_all(world: World) -> None:
    """Let every command end that still runs."""
    for child in filter(attrgetter("is_alive"), world.children):
        await child.stopped()


def test_rows_and_stages_are_the_same() -> None:
    """No row without a stage, no stage without a row, and no row twice."""
    assert sorted(row.situation for row in ROWS) == sorted(STAGES)


@pytest.mark.parametrize(
    ("words", "is_there"),
    [
        ("BAD Redis: it is full … maxmemory", True),
        ("it … used", False),
        ("is empty", False),
        ("maxmemory … full", False),
    ],
)
def test_only_words_that_are_there_are_found(words: str, is_there: bool) -> None:
    """In one line, in this order, with any white space between them."""
    assert is_said(words, "BAD  Redis: it is full, see its maxmemory\nused") == is_there


def is_refused_at_once(row: Row) -> bool:
    """Tell whether settings end a worker before it logs or opens anything."""
    return row.worker_code == ExitCode.USAGE and not row.event


REFUSED: Final = list(filter(is_refused_at_once, ROWS))
OTHERS: Final = list(filterfalse(is_refused_at_once, ROWS))


@pytest.mark.parametrize("row", REFUSED, ids=attrgetter("situation"))
async def test_wrong_settings_are_refused_as_their_row_says(world: World, row: Row) -> None:
    """Both commands run in this process: they end at once, and a start costs the most."""
    async with STAGES[row.situation].begin(world):
        worker = await world.run_command("run")
        doctor = await world.run_command("doctor")

    printed = doctor.out + doctor.err
    expect_words(row.says, printed)
    expect_words(row.says, worker.err, without_verdict=True)
    assert (doctor.code, worker.code) == (row.doctor_code, row.worker_code), printed
    assert row.status is None
    assert "Traceback" not in printed + worker.err


@pytest.mark.processes
@pytest.mark.parametrize("row", OTHERS, ids=attrgetter("situation"))
async def test_a_situation_is_as_its_row_says(world: World, row: Row) -> None:
    """Doctor and worker are processes, and run at the same time."""
    stage = STAGES[row.situation]
    async with stage.begin(world):
        owner = await owner_of(world)
        worker = world.children[-1] if stage.while_running else world.start("run")
        doctor = world.start("doctor")
        code = await doctor.ended()
        if row.worker_code is None:
            await keeps_running(worker, row)
        else:
            ended = await worker.ended()
            assert ended == row.worker_code, worker.err
            expect_words(row.says, worker.err, without_verdict=True)
            assert ended == ExitCode.USAGE or await owner_of(world) == owner

    if row.event:
        assert worker.entries(row.event), worker.err
    printed = doctor.out + doctor.err
    expect_words(row.says, printed)
    assert code == row.doctor_code, printed
    assert "Traceback" not in printed + worker.err


async def owner_of(world: World) -> dict[str, str]:
    """Return who has claimed the namespace: nobody does who refuses Redis."""
    owner: dict[str, str] = await redis_of(world).hgetall(KEYS.meta)
    return owner


async def keeps_running(worker: Child, row: Row) -> None:
    """Wait until page and log are what the row says; the worker runs on."""
    await worker.logs("http_listens")
    shown = ""

    async def is_as_expected() -> bool:
        nonlocal shown
        status, page = await worker.get_json("/readyz")
        shown = str(page)
        reason = str(page["checks"].get(row.check, {}).get("reason", ""))
        has_logged = not row.event or worker.entries(row.event)
        return bool(status == row.status and is_said(row.reason, reason) and has_logged)

    await wait_until(is_as_expected, what=lambda: f"{row} {shown} {worker.tail()}")
    assert worker.is_alive


def expect_words(says: tuple[str, ...], text: str, *, without_verdict: bool = False) -> None:
    """Expect a text to have these words; without what only the doctor writes before them."""
    for words in says:
        verdict, colon, rest = words.partition(": ")
        is_finding = colon and verdict.startswith(("BAD", "note", "ok"))
        wanted = rest if without_verdict and is_finding else words
        assert is_said(wanted, text), text
