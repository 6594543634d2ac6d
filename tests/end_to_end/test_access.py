"""Access Manager is on: workers and commands as processes, with a secret key or with a token.

The users react with PubNub's own SDK. ``tests/commands/test_tokens.py`` lets a token end.
"""

from collections.abc import Mapping
from typing import Any, Final

import pytest

from tests.emulator.clients import reaction
from tests.source.scripted import sdk
from tests.waiting import wait_until
from tests.worlds import KEY, MESSAGE, ROOM, World
from worker.emulator import DELETE, READ, WRITE, Grant
from worker.errors import ExitCode

pytestmark = pytest.mark.processes

KEYS: Final = ("pub-c-test", "sec-c-test")
SIGNING: Final = {"PUBNUB_PUBLISH_KEY": KEYS[0], "PUBNUB_SECRET_KEY": KEYS[1]}
USER: Final = "it's tally & é"
"""The worker's user: its name is signed, too."""


def with_token(world: World, permitted: int = READ, **more: Any) -> dict[str, str]:
    """Return the setting for a token of the worker."""
    channels = {ROOM: permitted, "hall": permitted}
    grant = Grant(minutes=60, uuid=USER, channels=channels, groups={"all": READ}, **more)
    return {"PUBNUB_AUTH_TOKEN": world.state.access.grant(grant)}


def credentials(world: World, kind: str) -> Mapping[str, str]:
    """Return the worker's settings, signed or with a token, and its user."""
    chosen = SIGNING if kind == "signed" else with_token(world)
    return {**chosen, "PUBNUB_USER_ID": USER, "TALLY_LOG_FORMAT": "json"}


async def react_with_the_sdk(world: World) -> None:
    """Let ana, with a token, and ben, who signs, add and remove."""
    grant = Grant(minutes=1, uuid="ana", channels={ROOM: WRITE | DELETE})
    settings = {"subscribe_key": KEY, "publish_key": KEYS[0]}
    async with (
        sdk(world.emulator.origin, **settings, user_id="ana") as ana,
        sdk(world.emulator.origin, **settings, user_id="ben", secret_key=KEYS[1]) as ben,
    ):
        ana.set_token(world.state.access.grant(grant))
        for user in (ana, ben):
            for value in ("👍", "🎉"):
                added = await user.add_message_action(ROOM, reaction(value, MESSAGE)).future()
                assert not added.is_error(), added
            timetoken = added.result.action_timetoken
            removed = await user.remove_message_action(ROOM, MESSAGE, timetoken).future()
            assert not removed.is_error(), removed


@pytest.mark.parametrize("kind", ["signed", "token"])
async def test_a_worker_counts_what_the_sdks_users_do(world: World, kind: str) -> None:
    """Live, with a channel group beside the channel; a past is repaired, too."""
    world.state.access.switch_on(*KEYS)
    world.state.groups.add("all", ["hall"])
    world.add_past(150)
    settings = {**credentials(world, kind), "TALLY_CHANNEL_GROUPS": "all"}
    worker = await world.follow(polls=2, **settings)

    await react_with_the_sdk(world)
    world.react("🔥", "cleo", "hall")
    await world.settles()

    assert await world.counts() == {"👍": 152}
    assert not worker.entries("pubnub_refused")
    assert not worker.entries("history_waits")
    assert await worker.stopped() == 0


@pytest.mark.parametrize("kind", ["signed", "token"])
async def test_the_other_commands_are_let_through(world: World, kind: str) -> None:
    """Backfill, reconcile, verify and doctor."""
    world.state.access.switch_on(*KEYS)
    await react_with_the_sdk(world)
    world.add_past(150)
    settings = credentials(world, kind)

    for command in ("backfill", "reconcile", "verify", "doctor"):
        ended = await world.do(command, **settings)
        assert ended.process.returncode == ExitCode.DONE, ended.out + ended.err
    assert await world.is_exact()


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({}, "403"),
        ({**SIGNING, "PUBNUB_SECRET_KEY": "sec-c-other"}, "Check PUBNUB_PUBLISH_KEY and "),
    ],
    ids=["nothing", "another key"],
)
async def test_a_command_without_permission_says_so(
    world: World, settings: dict[str, str], sentence: str
) -> None:
    """Nothing is counted. The sentence says what to check, if PubNub's answer tells it."""
    world.state.access.switch_on(*KEYS)
    world.add_past(1)

    ended = await world.do("backfill", **settings)

    assert ended.process.returncode == ExitCode.PUBNUB_REFUSED
    assert sentence in ended.out + ended.err
    assert not await world.tallies()


async def test_a_worker_whose_token_lacks_a_channel_counts_the_others(world: World) -> None:
    """The log names the channel that its token does not grant."""
    world.state.access.switch_on(*KEYS)
    settings = {**credentials(world, "token"), "TALLY_CHANNELS": "room,hall,cellar"}
    worker = world.start("run", **settings)
    await worker.logs("pubnub_refused")

    world.react()
    await wait_until(world.is_exact, what=worker.tail)

    assert worker.entries("pubnub_refused")[0]["names"] == ["cellar"]
    assert await worker.stopped() == 0
