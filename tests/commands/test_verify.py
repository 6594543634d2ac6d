"""``tally verify``: what it says, and how it ends."""

import pytest

from tests.worlds import ROOM, World
from worker.errors import ExitCode

NOTHING = "Nothing was compared"


async def test_a_second_look_is_announced(world: World) -> None:
    """Once, before the wait; on a terminal beside the progress."""
    for channel in ("news", ROOM):
        world.fill(3, channel=channel)
    settings = {"TALLY_SETTLE_SECONDS": "0.1"}
    logged = await world.run_command("verify", ROOM, "news", **settings)
    on_a_terminal = await world.commands().do_on_a_terminal("verify", ROOM, "news", **settings)

    assert {logged.code, on_a_terminal.code} == {ExitCode.DIFFERENCES}
    assert logged.err.count('"verify_looks_again"') == 1, logged.err
    assert on_a_terminal.err.count("Something differs. Looking again in 0.1 s: ") == 1


@pytest.mark.parametrize(("named", "code"), [((), 0), ((ROOM,), 1)])
async def test_a_verify_that_compared_nothing_says_so(
    world: World, named: tuple[str, ...], code: int
) -> None:
    """Every action is younger than lists may lag. Of a named channel that is no success."""
    world.react()

    ended = await world.run_command("verify", *named, TALLY_SETTLE_SECONDS="600")

    assert ended.code == code
    assert NOTHING in ended.out


async def test_a_verify_of_unknown_channels_compared_nothing(world: World) -> None:
    """Their names may be slips. A channel of the settings may be new, and empty."""
    slip = await world.run_command("verify", "rom")
    new = await world.run_command("verify", ROOM)

    assert (slip.code, new.code) == (1, 0)
    assert NOTHING in slip.out
    assert NOTHING not in new.out


async def test_each_listed_action_counts_once(world: World) -> None:
    """Pages overlap by an action. Seven pages, and two channels with one page each."""
    for channel, actions in (("big", 600), ("news", 2), (ROOM, 1)):
        world.fill(actions, channel=channel)
    named = ("big", "news", ROOM)

    backfilled = await world.run_command("backfill", *named)
    reconciled = await world.run_command("reconcile", *named)
    verified = await world.run_command("verify", *named)

    assert backfilled.out.startswith("603 actions read in 3 channels."), backfilled.err
    assert reconciled.out.startswith("603 actions listed in 3 channels"), reconciled.err
    assert "; 603 actions listed, 603 entries compared in 3 channels" in verified.out
