"""A channel that nobody knows is called so: its name may be a slip."""

import json

from tests.worlds import MESSAGE, ROOM, World


async def test_explain_says_that_nothing_is_known(world: World) -> None:
    """Of a channel that a worker follows it says what the journal holds."""
    async with world.run_worker():
        world.react()
        await world.wait_for_counts({"👍": 1})

    slip = await world.run_command("explain", "rom", MESSAGE)
    for_programs = await world.run_command("explain", "rom", MESSAGE, "--json")
    known = await world.run_command("explain", ROOM, "17600000000000000")

    assert slip.code == 0
    assert slip.out.startswith("Nobody knows the channel rom: no worker has counted it ")
    assert json.loads(for_programs.out)["known"] is False
    assert known.out.startswith("Now: no reactions.")


async def test_verify_says_that_nobody_follows_a_channel(world: World) -> None:
    """A channel of the settings may be new: that is no slip."""
    slip = await world.run_command("verify", "rom", ROOM)

    assert "rom: no worker has ever followed this channel. Is the name right?" in slip.out
    assert f"{ROOM}: no worker" not in slip.out


async def test_a_note_is_no_plain_ok_for_programs(world: World) -> None:
    """``tally doctor --json`` has the verdict of each check."""
    ended = await world.run_command("doctor", "--json", TALLY_CHANELS="room")

    checks = json.loads(ended.out)["checks"]
    verdicts = {check["text"]: check["verdict"] for check in checks}
    note, no_worker = (text for text, verdict in verdicts.items() if verdict == "note")
    assert note.startswith("TALLY_CHANELS")
    assert no_worker.startswith("No worker runs")
    assert all(check["ok"] for check in checks)
