"""``tally config``: the settings in force, their sources, and their problems; never a secret."""

import json
from pathlib import Path
from typing import Final

import pytest

from tests.bench.in_process import Commands, Ended
from tests.redis_server import free_port
from tests.worlds import World
from worker.settings import FIELDS, SECRETS

CANARY: Final = "canary"


async def tally(folder: Path, *arguments: str, **settings: str) -> Ended:
    """Run a command in a folder, with these settings and no others in its environment."""
    ended = await Commands(folder, {}).do(*arguments, **settings)
    assert CANARY not in ended.out + ended.err
    return ended


@pytest.fixture
def secrets(tmp_path: Path) -> dict[str, str]:
    """Give secrets in .env and in files, and return those for the environment."""
    for name in ("token", "publish"):
        (tmp_path / name).write_text(f"{CANARY}-{name}\n")
    (tmp_path / ".env").write_text(
        f"PUBNUB_SECRET_KEY=sec-c-{CANARY}\n"
        "PUBNUB_PUBLISH_KEY_FILE=publish\n"
        "TALLY_CHANNELS=room\n"
        f"TALLY_PASSPHRASE={CANARY}\n"
    )
    return {
        "PUBNUB_SUBSCRIBE_KEY": f"sub-c-{CANARY}",
        "PUBNUB_AUTH_TOKEN_FILE": str(tmp_path / "token"),
        "REDIS_URL": f"redis://worker:{CANARY}@localhost:1/0?password={CANARY}",
        "TALLY_CHANELS": CANARY,
    }


async def test_programs_get_every_setting_and_source(
    tmp_path: Path, secrets: dict[str, str]
) -> None:
    """And the variables that are no setting."""
    ended = await tally(tmp_path, "config", "--json", **secrets)
    shown = json.loads(ended.out)
    values = {item["name"]: (item["value"], item["source"]) for item in shown["settings"]}

    assert (ended.code, ended.err) == (0, "")
    assert list(values) == list(FIELDS)
    assert [item["name"] for item in shown["settings"] if item["secret"]] == list(SECRETS)
    assert {name: value for name, value in values.items() if value[1] != "default"} == {
        "PUBNUB_SUBSCRIBE_KEY": ("set, 12 characters", "environment"),
        "PUBNUB_PUBLISH_KEY": ("set, 14 characters", "file publish"),
        "PUBNUB_PUBLISH_KEY_FILE": ("publish", ".env"),
        "PUBNUB_SECRET_KEY": ("set, 12 characters", ".env"),
        "PUBNUB_AUTH_TOKEN": ("set, 12 characters", f"file {tmp_path / 'token'}"),
        "PUBNUB_AUTH_TOKEN_FILE": (str(tmp_path / "token"), "environment"),
        "REDIS_URL": ("redis://worker:***@localhost:1/0?password=***", "environment"),
        "TALLY_CHANNELS": ("room", ".env"),
    }
    assert [(item["name"], item["nearest"]) for item in shown["unknown"]] == [
        ("TALLY_CHANELS", "TALLY_CHANNELS"),
        ("TALLY_PASSPHRASE", None),
    ]


async def test_people_get_a_line_for_each(tmp_path: Path, secrets: dict[str, str]) -> None:
    """The settings, then the variables that are no setting."""
    ended = await tally(tmp_path, "config", **secrets)
    lines = ended.out.splitlines()
    words = {line.split()[0]: line.split()[1:] for line in lines[: len(FIELDS)]}

    assert (ended.code, ended.err) == (0, "")
    assert list(words) == list(FIELDS)
    assert words["TALLY_CHANNELS"] == ["room", ".env"]
    assert words["TALLY_TYPES"] == ["-", "default"]
    assert lines[len(FIELDS) :] == [
        "warning: TALLY_CHANELS (environment) is no setting; is TALLY_CHANNELS meant?",
        "warning: TALLY_PASSPHRASE (.env) is no setting.",
    ]


@pytest.mark.parametrize("command", ["config", "run", "backfill", "reconcile", "verify"])
async def test_every_command_reports_all_problems(tmp_path: Path, command: str) -> None:
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
    assert [line[line.rindex("(") :] for line in lines] == [
        "(PUBNUB_AUTH_TOKEN_FILE: environment)",
        "(PUBNUB_SECRET_KEY: file key)",
        "(TALLY_HTTP: environment)",
        "(TALLY_LOG_LEVEL: .env)",
        "(REDIS_URL: environment)",
        "(TALLY_NAMESPACE: .env)",
        "(TALLY_CHANNELS: environment)",
    ]


async def test_readers_ignore_settings_of_the_worker(tmp_path: Path) -> None:
    """Only Redis is missing here."""
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


async def test_a_health_check_needs_an_address(tmp_path: Path) -> None:
    """It ends with 2 and the setting's name."""
    ended = await tally(tmp_path, "healthcheck", TALLY_HTTP="off")

    assert (ended.code, "TALLY_HTTP" in ended.err) == (2, True)


async def test_a_worker_logs_unknown_variables_once(world: World) -> None:
    """At its start, in one entry, with the nearest names and without the values."""
    async with world.run_worker(TALLY_CHANELS=CANARY, PUBNUB_ORIGN=CANARY) as worker:
        (entry,) = worker.entries("unknown_settings")

    assert entry["level"] == "warning"
    for name in ("TALLY_CHANELS", "TALLY_CHANNELS", "PUBNUB_ORIGN", "PUBNUB_ORIGIN"):
        assert name in entry["settings"]
    assert CANARY not in worker.out + worker.err


async def test_a_short_catchup_is_warned_of(world: World) -> None:
    """A cache trusted for less than an idle poll is safe, but each quiet answer is a gap."""
    async with world.run_worker(TALLY_CATCHUP_SECONDS="60") as worker:
        (entry,) = worker.entries("catchup_is_short")

    assert (entry["level"], entry["seconds"], entry["least_seconds"]) == ("warning", 60, 330)
