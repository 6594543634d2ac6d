"""``tally config``: what is in force, where it comes from, what is wrong; never a secret."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.bench.commands import following
from tests.bench.in_process import Commands, Ended
from tests.end_to_end.processes import Stage
from tests.redis_server import free_port
from worker.settings import FIELDS, SECRETS

CANARY = "canary"


async def tally(folder: Path, *arguments: str, **settings: str) -> Ended:
    """Run a command in a folder, with these settings and no others in its environment."""
    ended = await Commands(folder, {}).do(*arguments, **settings)
    assert CANARY not in ended.out + ended.err
    return ended


@pytest.fixture
def secrets(tmp_path: Path) -> dict[str, str]:
    """Give secrets in every form: values to set in the environment; one in .env, one in a file, one named by .env."""
    for name in ("token", "publish"):
        (tmp_path / name).write_text(f"{CANARY}-{name}\n")
    (tmp_path / ".env").write_text(
        f"PUBNUB_SECRET_KEY=sec-c-{CANARY}\nPUBNUB_PUBLISH_KEY_FILE=publish\nTALLY_CHANNELS=room\nTALLY_TOKEN={CANARY}\n"
    )
    return {
        "PUBNUB_SUBSCRIBE_KEY": f"sub-c-{CANARY}",
        "PUBNUB_AUTH_TOKEN_FILE": str(tmp_path / "token"),
        "REDIS_URL": f"redis://worker:{CANARY}@localhost:1/0?password={CANARY}",
        "TALLY_CHANELS": CANARY,
    }


def by_name(told: Any) -> dict[str, tuple[str | None, str]]:
    """Return name → value and source."""
    return {each["name"]: (each["value"], each["source"]) for each in told["settings"]}


async def test_it_tells_what_is_in_force_and_where_from(
    tmp_path: Path, secrets: dict[str, str]
) -> None:
    """For programs: every setting, its source, and what is no setting."""
    ended = await tally(tmp_path, "config", "--json", **secrets)
    told = json.loads(ended.out)

    assert (ended.code, ended.err) == (0, "")
    assert list(by_name(told)) == list(FIELDS)
    assert [each["name"] for each in told["settings"] if each["secret"]] == list(SECRETS)
    assert {name: each for name, each in by_name(told).items() if each[1] != "default"} == {
        "PUBNUB_SUBSCRIBE_KEY": ("set, 12 characters", "environment"),
        "PUBNUB_PUBLISH_KEY": ("set, 14 characters", "file publish"),
        "PUBNUB_PUBLISH_KEY_FILE": ("publish", ".env"),
        "PUBNUB_SECRET_KEY": ("set, 12 characters", ".env"),
        "PUBNUB_AUTH_TOKEN": ("set, 12 characters", f"file {tmp_path / 'token'}"),
        "PUBNUB_AUTH_TOKEN_FILE": (str(tmp_path / "token"), "environment"),
        "REDIS_URL": ("redis://worker:***@localhost:1/0?password=***", "environment"),
        "TALLY_CHANNELS": ("room", ".env"),
    }
    assert [(each["name"], each["nearest"]) for each in told["unknown"]] == [
        ("TALLY_CHANELS", "TALLY_CHANNELS"),
        ("TALLY_TOKEN", None),
    ]


async def test_it_tells_people_the_same(tmp_path: Path, secrets: dict[str, str]) -> None:
    """A line for each setting, then the slips."""
    ended = await tally(tmp_path, "config", **secrets)
    lines = ended.out.splitlines()

    assert (ended.code, ended.err) == (0, "")
    assert [line.split()[0] for line in lines[: len(FIELDS)]] == list(FIELDS)
    assert lines[list(FIELDS).index("TALLY_CHANNELS")].split() == ["TALLY_CHANNELS", "room", ".env"]
    assert lines[list(FIELDS).index("TALLY_TYPES")].split() == ["TALLY_TYPES", "-", "default"]
    assert lines[len(FIELDS) :] == [
        "warning: TALLY_CHANELS (environment) is no setting; is TALLY_CHANNELS meant?",
        "warning: TALLY_TOKEN (.env) is no setting.",
    ]


@pytest.mark.parametrize("command", ["config", "run", "backfill", "reconcile", "verify", "doctor"])
async def test_wrong_settings_of_every_source_are_told_in_one_go(
    tmp_path: Path, command: str
) -> None:
    """From the environment, .env and files; exit 2, and nothing is opened."""
    (tmp_path / "key").write_text(f"{CANARY} key\n")
    (tmp_path / ".env").write_text(
        "TALLY_LOG_LEVEL=loud\nPUBNUB_SECRET_KEY_FILE=key\nTALLY_NAMESPACE=a b\n"
    )
    ended = await tally(
        tmp_path,
        command,
        PUBNUB_SUBSCRIBE_KEY="sub-c-1",
        REDIS_URL=f"http://{CANARY}",
        TALLY_HTTP="localhost:web",
        TALLY_CHANNELS="a/b",
        PUBNUB_AUTH_TOKEN_FILE=CANARY,
    )

    assert (ended.code, ended.out) == (2, "")
    head, *lines = ended.err.splitlines()
    assert head == "tally: These settings are wrong:"
    told = {line.split()[0]: line[line.rindex("(") :] for line in lines}
    assert told == {
        "PUBNUB_SECRET_KEY:": "(file key)",
        "PUBNUB_AUTH_TOKEN_FILE:": "(environment)",
        "REDIS_URL": "(environment)",
        "The": "(TALLY_CHANNELS: environment)",
        "TALLY_NAMESPACE": "(.env)",
        "TALLY_HTTP:": "(environment)",
        "TALLY_LOG_LEVEL:": "(.env)",
    }


async def test_a_reader_needs_no_more_than_it_uses(tmp_path: Path) -> None:
    """A wrong setting of the worker's does not keep anyone from reading: here nothing but Redis is missing."""
    ended = await tally(
        tmp_path,
        "show",
        "room",
        "17600000001728660",
        REDIS_URL=f"redis://127.0.0.1:{free_port()}",
        TALLY_HTTP="x:y",
        TALLY_CHANNELS="/",
    )
    assert ended.code == 4, ended.err
    assert "Redis does not answer" in ended.err


async def test_there_is_nobody_to_ask_where_no_port_is_set(tmp_path: Path) -> None:
    """A health check ends with 2 and the setting's name."""
    ended = await tally(tmp_path, "healthcheck", TALLY_HTTP="off")

    assert (ended.code, "TALLY_HTTP" in ended.err) == (2, True)


async def test_a_worker_says_once_what_is_no_setting(stage: Stage) -> None:
    """At its start, in one entry, with the name that may have been meant."""
    async with following(stage, TALLY_CHANELS=CANARY, PUBNUB_ORIGN=CANARY) as worker:
        (entry,) = worker.entries("unknown_settings")

    assert entry["level"] == "warning"
    for name in ("TALLY_CHANELS", "TALLY_CHANNELS", "PUBNUB_ORIGN", "PUBNUB_ORIGIN"):
        assert name in entry["settings"]
    assert CANARY not in worker.out + worker.err


async def test_a_short_cache_is_said(stage: Stage) -> None:
    """One trusted for less than an idle poll takes is safe, and dear: every quiet answer is taken for a gap."""
    async with following(stage, TALLY_CATCHUP_SECONDS="60") as worker:
        (said,) = worker.entries("catchup_is_short")

    assert (said["level"], said["seconds"], said["least_seconds"]) == ("warning", 60, 330)
