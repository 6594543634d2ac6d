"""No secret is ever written, whatever goes wrong, however loud the log."""

from collections.abc import AsyncIterator

import pytest

from tests.end_to_end.processes import ROOM, Stage, wait_until
from worker.emulator import OUTAGE_KINDS

CANARY = "canary"
"""Stands in every secret, in a form that no encoding changes."""


@pytest.fixture
async def guarded(stage: Stage) -> AsyncIterator[Stage]:
    """Give the stage secrets of every kind, and a Redis that wants one."""
    await stage.redis.execute_command("ACL", "SETUSER", "worker", "on", f">{CANARY}-word", "~*", "&*", "+@all")
    stage.settings |= {
        "PUBNUB_PUBLISH_KEY": "pub-c-test",
        "PUBNUB_SECRET_KEY": f"sec-c-{CANARY}",
        "PUBNUB_AUTH_TOKEN": f"q+{CANARY}/x=",
        "REDIS_URL": stage.settings["REDIS_URL"].replace("://", f"://worker:{CANARY}-word@"),
        "TALLY_LOG_LEVEL": "debug",
    }
    yield stage
    await stage.redis.execute_command("ACL", "DELUSER", "worker")


def expect_silence(stage: Stage) -> None:
    """Expect that no command has written a secret."""
    for child in stage.children:
        assert CANARY not in child.out + child.err


async def test_a_worker_in_trouble_keeps_its_secrets(guarded: Stage) -> None:
    """Outages of every kind, a 403, a cut connection and a changed password, at the loudest level."""
    worker = await guarded.follow()
    for number, kind in enumerate(OUTAGE_KINDS):
        polls = guarded.emulator.requests["subscribe"]
        guarded.state.set_outage(kind)
        await wait_until(lambda polls=polls: guarded.emulator.requests["subscribe"] > polls)  # type: ignore[misc]
        guarded.state.set_outage(None)
        guarded.react(uuid=f"user-{number}")
        await guarded.settles()
    await guarded.redis.execute_command("ACL", "SETUSER", "worker", "resetpass", ">another")
    await guarded.redis.client_kill_filter(_type="normal", skipme=True)
    guarded.react("🎉")
    await wait_until(lambda: bool(worker.entries("redis_unavailable")), what=lambda: worker.err)
    await guarded.redis.execute_command("ACL", "SETUSER", "worker", f">{CANARY}-word")
    await guarded.settles()
    guarded.state.refuse([ROOM])
    await wait_until(lambda: bool(worker.entries("pubnub_refused")))

    assert await worker.stopped() == 0
    expect_silence(guarded)


async def test_commands_in_trouble_keep_their_secrets(guarded: Stage) -> None:
    """What doctor and backfill say of a good day, of a refusal, and of a password that is wrong."""
    for number in range(10):
        guarded.react(uuid=f"user-{number}")
    well = [await guarded.do("doctor"), await guarded.do("backfill")]
    guarded.state.refuse([ROOM])
    refused = [await guarded.do("doctor"), await guarded.do("backfill")]
    guarded.state.refuse()
    await guarded.redis.execute_command("ACL", "SETUSER", "worker", "resetpass", ">another")
    locked = [await guarded.do("doctor"), await guarded.do("backfill"), await guarded.do("show", ROOM, "1")]

    assert [child.process.returncode for child in well + refused + locked] == [0, 0, 3, 3, 4, 4, 4]
    expect_silence(guarded)


@pytest.mark.parametrize(
    ("name", "secret"),
    [
        ("REDIS_URL", "redis://:canary/word@localhost:6379/0"),
        ("REDIS_URL", "redis://:canary#word@localhost:6379/0"),
        ("REDIS_URL", "redis://:canary[word@localhost:6379/0"),
        ("REDIS_URL", "redis://:canary℀word@localhost:6379/0"),
        ("REDIS_URL", "canary"),
        ("PUBNUB_SECRET_KEY", "sec-c-canary!"),
    ],
)
async def test_a_malformed_secret_is_not_shown(stage: Stage, name: str, secret: str) -> None:
    """A secret that cannot be read is refused with 2, by the name of its setting."""
    child = await stage.do("run", **{name: secret, "PUBNUB_PUBLISH_KEY": "pub-c-test"})

    assert child.process.returncode == 2
    assert name in child.err
    expect_silence(stage)
