"""``tally show``, ``explain`` and ``doctor``: what they print, as text and as JSON."""

import json
import re

from tests.redis_server import free_port
from tests.worlds import MESSAGE, ROOM, World


async def test_show_prints_the_tallies(world: World) -> None:
    """Each line has type, value and count, the most frequent first."""
    tally = world.commands()
    for uuid in ("ana", "ben", "cem"):
        world.react("🎉", uuid)
    world.react("👍")
    world.state.add(ROOM, MESSAGE, "receipt", "read", "ana")
    await tally.do("backfill")

    shown = await tally.do("show", ROOM, MESSAGE)
    as_json = await tally.do("show", ROOM, MESSAGE, "--json")
    nothing = await tally.do("show", ROOM, "1")
    nothing_as_json = await tally.do("show", "nowhere", "1", "--json")

    assert shown.out == "reaction  🎉  3\nreaction  👍  1\nreceipt  read  1\n"
    counts = {"reaction": {"🎉": 3, "👍": 1}, "receipt": {"read": 1}}
    document = json.loads(as_json.out)
    assert (document["channel"], document["message_timetoken"]) == (ROOM, MESSAGE)
    assert document["counts"] == counts
    first, *_ = document["reactions"]
    assert (first["value"], first["count"], sorted(first["names"])) == (
        "🎉",
        3,
        ["ana", "ben", "cem"],
    )
    assert document["known"]
    assert not document["in_doubt"]
    assert nothing.out == "No reactions.\n"
    nowhere = json.loads(nothing_as_json.out)
    assert (nowhere["counts"], nowhere["known"]) == ({}, False)
    assert {ended.code for ended in tally.ended} == {0}
    assert "".join(child.err for child in (shown, as_json, nothing, nothing_as_json)) == ""


async def test_explain_prints_the_changes(world: World) -> None:
    """Each change has its time and origin. The users who count now follow. Nothing is written."""
    tally = world.commands()
    world.react("🎉", "ana")
    world.react("🎉", "ben")
    await tally.do("backfill")
    keys = set(await world.redis.keys())

    explained = await tally.do("explain", ROOM, MESSAGE)
    as_json = await tally.do("explain", ROOM, MESSAGE, "--json")

    *changes, now, reach = explained.out.splitlines()
    assert sorted(line[24:] for line in changes) in (
        [
            "  backfill  added applied  reaction  🎉  ana  → 1",
            "  backfill  added applied  reaction  🎉  ben  → 2",
        ],
        [
            "  backfill  added applied  reaction  🎉  ana  → 2",
            "  backfill  added applied  reaction  🎉  ben  → 1",
        ],
    )
    assert now == "Now: reaction  🎉  2: ana, ben"
    assert reach == "The journal holds every change since the channel was first counted."
    document = json.loads(as_json.out)
    assert (document["channel"], document["message_timetoken"], document["whole"]) == (
        ROOM,
        MESSAGE,
        True,
    )
    assert [line[:24] for line in changes] == [change["time"] for change in document["changes"]]
    assert document["counts"] == {"reaction": {"🎉": 2}}
    assert sorted(document["users"]["reaction"]["🎉"]) == ["ana", "ben"]
    assert {ended.code for ended in tally.ended} == {0}
    assert explained.err + as_json.err == ""
    assert set(await world.redis.keys()) <= keys  # a request budget lives for seconds


async def test_doctor_finds_no_fault(world: World) -> None:
    """Exit 0, and a line for each check. Nothing is written to Redis."""
    tally = world.commands()
    world.state.groups.add("team", ["red"])
    settings = {"TALLY_CHANNELS": "room,a.*", "TALLY_CHANNEL_GROUPS": "team"}

    child = await tally.do("doctor", **settings)
    as_json = await tally.do("doctor", "--json", **settings)

    said = child.out.splitlines()
    assert (child.code, child.err) == (0, "")
    assert said[:6] == [
        "ok   Configuration: complete; counts all types but deleted,edited,threadRootId",
        "ok   TALLY_HTTP: 127.0.0.1:0 is free",
        "ok   PubNub: answers",
        "ok   PubNub: lets us subscribe to 3 names",
        "ok   PubNub: lets us list group 'team': 1 channels",
        "ok   PubNub: lets us read the actions of 'room'",
    ]
    assert re.match(r"ok   Redis: answers, (Valkey|Redis) \d", said[6])
    assert said[7:9] == [
        "ok   Redis: takes writes, and permits every command of the worker",
        "ok   Redis: namespace 'tally' is free",
    ]
    assert said[9].startswith("ok   Rounds: 1 channels")
    assert said[10].startswith("note Following: No worker runs")
    explained = json.loads(as_json.out)
    assert explained["ok"]
    lines = [
        f"{check['verdict']:4} {check['subject']}: {check['text']}" for check in explained["checks"]
    ]
    # The memory in use is another one.
    assert [*lines[:6], *lines[7:]] == [*said[:6], *said[7:]]
    assert await world.redis.keys() == []


async def test_doctor_asks_for_every_name(world: World) -> None:
    """More names than one request can carry are asked for part by part."""
    tally = world.commands()
    channels = [f"a-channel-with-a-longer-name-{number:04}" for number in range(1500)]
    settings = {"TALLY_CHANNELS": ",".join(channels), "TALLY_CHANNELS_PER_SUBSCRIPTION": "100"}

    well = await tally.do("doctor", **settings)
    polls = world.emulator.requests["subscribe"]
    world.state.refuse([channels[150]])
    refused = await tally.do("doctor", **settings)

    assert well.code == 0, well.out
    assert well.out.count("lets us subscribe") == 1
    assert "ok   PubNub: lets us subscribe to 1500 names" in well.out
    assert polls == 15
    assert refused.code == 3
    assert refused.out.count("subscribe") == 1
    assert f"Refused: '{channels[150]}'." in refused.out
    assert world.emulator.requests["subscribe"] == 2 * polls


async def test_doctor_reports_every_fault(world: World) -> None:
    """The exit code is that of the first fault."""
    tally = world.commands()
    world.state.refuse(["room"])
    away = f"redis://127.0.0.1:{free_port()}"
    nothing_to_follow = await tally.do("doctor", TALLY_CHANNELS=None)
    refused = await tally.do("doctor")
    redis_away = await tally.do("doctor", TALLY_CHANNELS="hall", REDIS_URL=away)
    all_wrong = await tally.do("doctor", "--json", PUBNUB_SUBSCRIBE_KEY=None, REDIS_URL=away)

    assert nothing_to_follow.code == 2
    assert "BAD  Configuration: Nothing to follow: set TALLY_CHANNELS" in nothing_to_follow.out
    assert "ok   Redis: answers" in nothing_to_follow.out
    assert refused.code == 3
    assert (
        "answered 403, Forbidden. Refused: 'room'. Grant 'read' to this worker's token"
        in refused.out
    )
    assert "ok   Redis: answers" in refused.out
    assert redis_away.code == 4
    assert "BAD  Redis: Redis does not answer" in redis_away.out
    assert all_wrong.code == 2
    assert [(check["subject"], check["ok"]) for check in json.loads(all_wrong.out)["checks"]] == [
        ("Configuration", False),
        ("TALLY_HTTP", True),
        ("Redis", False),
    ]
    for ended in tally.ended:
        assert ended.err == ""


async def test_doctor_notices_another_keyset(world: World) -> None:
    """Exit 4 if the namespace belongs to another keyset, with what to do."""
    tally = world.commands()
    await world.redis.hset("tally:meta", mapping={"schema": "1", "subscribe_key": "sub-c-other"})

    child = await tally.do("doctor")

    assert child.code == 4
    assert "BAD  Redis: The namespace tally holds the tallies of another keyset" in child.out
    assert "Set TALLY_NAMESPACE" in child.out
