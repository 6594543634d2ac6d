"""``tally show``, ``top`` and ``channels``: plain lines and JSON, and rows on a terminal."""

import json
from pathlib import Path

import pytest

from tests.terminals import Terminal
from tests.worlds import MESSAGE, ROOM, World

UNKNOWN = (
    "Nobody knows the channel nope: no worker has counted it "
    "in the namespace tally. Is the name right?\n"
)


@pytest.fixture
async def counted(world: World) -> World:
    """A world with a few counts."""
    for uuid in ("ana", "ben", "cem"):
        world.react("🎉", uuid)
    world.react("👍", "ana")
    await world.run_command("backfill")
    return world


async def test_show_says_what_is_mine_and_who(counted: World) -> None:
    """If it is asked: the lines of everybody else stay as they are."""
    plain = await counted.run_command("show", ROOM, MESSAGE)
    mine = await counted.run_command("show", ROOM, MESSAGE, "--me", "ben", "--names", "2")
    as_json = await counted.run_command("show", ROOM, MESSAGE, "--me", "ben", "--json")

    assert plain.out == "reaction  🎉  3\nreaction  👍  1\n"
    assert mine.out == "reaction  🎉  3  mine  ana, ben and 1 more\nreaction  👍  1  ana\n"
    party, thumb = json.loads(as_json.out)["reactions"]
    assert (party["mine"], party["names"]) == (True, ["ana", "ben", "cem"])
    assert (thumb["mine"], thumb["first_at"] == thumb["last_at"]) == (False, True)


async def test_show_prints_everybody_who_chose_a_value(counted: World) -> None:
    """Since when, of whichever type, oldest first, however many they are."""
    counted.add_past(1_100, "🙂")
    counted.state.add(ROOM, MESSAGE, "receipt", "🙂", "zoe")
    await counted.run_command("backfill")

    smiles = await counted.run_command("show", ROOM, MESSAGE, "--who", "🙂")
    parties = await counted.run_command("show", ROOM, MESSAGE, "--who", "🎉", "--json")
    nobody = await counted.run_command("show", ROOM, MESSAGE, "--who", "👎")
    unknown = await counted.run_command("show", "nope", MESSAGE, "--who", "👎")

    *past, last = [line.split("  ") for line in smiles.out.splitlines()]
    assert [user for _, _, user in past] == [f"old-{number}" for number in range(1_100)]
    assert last[1:] == ["receipt", "zoe"]
    assert past[0][0].endswith("Z")
    assert [user["user"] for user in json.loads(parties.out)["users"]] == ["ana", "ben", "cem"]
    assert (nobody.out, unknown.out) == ("Nobody.\n", UNKNOWN)


async def test_a_channel_in_doubt_is_told(counted: World) -> None:
    """On standard error, so that the lines stay as they are; with --json in the object."""
    await counted.redis.hset(f"tally:{{{ROOM}}}:owed", "stale_cursor", "1")
    for command in (("show", ROOM, MESSAGE), ("top", ROOM), ("top",)):
        ended = await counted.run_command(*command)
        assert ended.err.startswith("tally: Events may have been missed in room. ")
        assert (await counted.run_command(*command, "--json")).out.count("in_doubt") == 1


async def test_an_unknown_channel_is_told(counted: World) -> None:
    """It is no failure, as in ``tally forget``; for programs ``known`` says it."""
    for command in (("show", "nope", "1"), ("explain", "nope", "1"), ("top", "nope")):
        ended = await counted.run_command(*command)
        assert (ended.code, ended.out, ended.err) == (0, UNKNOWN, "")
        as_json = json.loads((await counted.run_command(*command, "--json")).out)
        assert as_json["known"] is False


async def test_top_prints_a_line_for_each_message(counted: World) -> None:
    """Channel, message, count, and all its tallies."""
    everything = await counted.run_command("top")
    parties = await counted.run_command("top", ROOM, "--value", "🎉", "--json")
    nothing = await counted.run_command("top", "--since", "1h")

    assert everything.out == f"{ROOM}  {MESSAGE}  4  🎉 3, 👍 1\n"
    (message,) = json.loads(parties.out)["messages"]
    assert (message["count"], message["counts"]) == (3, {"reaction": {"🎉": 3, "👍": 1}})
    assert nothing.out == "No reactions.\n"


async def test_channels_prints_what_is_owed(counted: World) -> None:
    """And since when, why, and up to when a channel is proven."""
    await counted.redis.hset(f"tally:{{{ROOM}}}:owed", "stale_cursor", "1760000000000")
    plain = await counted.run_command("channels")
    as_json = await counted.run_command("channels", "--owed", "--json")

    line, last, no_worker = plain.out.splitlines()
    assert line.startswith("room  changed 20")
    assert "  messages 1  owed stale_cursor since 2025-10-09T08:53:20.000Z  proven never" in line
    assert last == "1 of 1 channels shown. 1 owed a repair."
    (room,) = json.loads(as_json.out)["channels"]
    assert room["owed"] == {"stale_cursor": "2025-10-09T08:53:20.000Z"}
    assert (room["late"], room["proven"], room["proven_full"]) == (True, None, None)
    assert no_worker.startswith("No worker runs, or ran in the last day.")
    assert json.loads(as_json.out)["no_worker"] == no_worker
    assert json.loads(as_json.out)["heartbeat_age_seconds"] is None


async def test_channels_says_only_if_no_worker_runs(world: World) -> None:
    """The line is not there while one runs."""
    async with world.run_worker():
        await world.settles()
        plain = await world.run_command("channels")
        as_json = await world.run_command("channels", "--json")

    # Another worker would have given a sign of life by now.
    await world.redis.expire("tally:subscriptions", 86_340)
    stopped = await world.run_command("channels")

    assert len(plain.out.splitlines()) == 2
    assert json.loads(as_json.out)["no_worker"] is None
    assert json.loads(as_json.out)["heartbeat_age_seconds"] < 30
    *_, last = stopped.out.splitlines()
    assert last.startswith("No worker runs: the last one gave a sign of life a minute ago.")


async def test_channels_are_listed_to_a_user_who_may_not_see_workers(counted: World) -> None:
    """As redis-users.acl of 0.2 had it."""
    await counted.redis.execute_command(
        *("ACL", "SETUSER", "looker", "on", ">x", "+@read", "+@connection", "+multi", "+exec"),
        *("~tally:{*}:*", "~tally:channels", "~tally:meta", "~tally:proven", "~tally:proven:full"),
    )
    url = counted.settings["REDIS_URL"].replace("://", "://looker:x@")
    try:
        ended = await counted.run_command("channels", REDIS_URL=url)
    finally:
        await counted.redis.execute_command("ACL", "DELUSER", "looker")

    assert ended.code == 0, ended
    *_, last = ended.out.splitlines()
    assert last.startswith("Does a worker run? ")
    assert "1 of 1 channels shown." in ended.out


@pytest.mark.processes
@pytest.mark.parametrize("columns", [60, 120])
async def test_a_terminal_gets_rows_and_bars(counted: World, tmp_path: Path, columns: int) -> None:
    """As wide as it is; the same in a pipe are plain lines."""
    for command, words in {
        ("show", ROOM, MESSAGE, "--me", "ben"): ("* ", "🎉", "█████", "ana, ben", ROOM),
        ("top",): ("█████" if columns > 60 else MESSAGE, "🎉 3  👍 1", "in each of 1 channels"),
        ("channels",): ("room", "changed", "nothing", "1 of 1 channels shown."),
    }.items():
        terminal = Terminal(tmp_path, command, counted.settings, columns)
        try:
            assert await terminal.ended() == 0
        finally:
            terminal.close()
        for word in words:
            assert word in terminal.text, terminal.text


@pytest.mark.processes
async def test_a_terminal_without_emoji_gets_lines(counted: World, tmp_path: Path) -> None:
    """Rows of escapes would have no columns."""
    settings = {**counted.settings, "PYTHONIOENCODING": "latin-1"}
    terminal = Terminal(tmp_path, ("show", ROOM, MESSAGE), settings)
    try:
        assert await terminal.ended() == 0
    finally:
        terminal.close()
    assert terminal.drawn == "reaction  \\U0001f389  3\nreaction  \\U0001f44d  1\n"
