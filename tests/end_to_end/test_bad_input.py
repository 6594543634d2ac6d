"""What is wrong is said in a sentence, stops nothing else, and loses no other event."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.processes import KEY, MESSAGE, OURS, ROOM, Child, Stage, wait_until
from tests.redis_server import free_port
from worker.emulator import Emulator
from worker.emulator.cache import Message

UNSET = None
NOTHING_LISTENS = "127.0.0.1:1"


def said(child: Child) -> str:
    """Return what a command said, all of it, having made sure that it is no traceback."""
    assert "Traceback" not in child.out + child.err, child.err
    return child.out + child.err


def test_a_wrong_line_or_setting_ends_the_process(tmp_path: Path) -> None:
    """As a shell sees it: an exit code, and on standard error a sentence for each thing that is wrong."""
    bare = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    ended = subprocess.run(
        [sys.executable, "-m", "worker", "run"], cwd=tmp_path, env=bare, capture_output=True, text=True, check=False
    )

    assert ended.returncode == 2
    assert ended.stdout == ""
    assert ended.stderr.startswith("tally: ")
    assert "PUBNUB_SUBSCRIBE_KEY is not set. Copy" in ended.stderr
    assert "Nothing to follow: set TALLY_CHANNELS" in ended.stderr
    assert "Traceback" not in ended.stderr


async def test_a_port_in_use_is_said(stage: Stage) -> None:
    """The emulator's command ends with 2 and names the port."""
    port = stage.emulator.origin.partition(":")[2]

    child = await stage.do("emulator", "--port", port)

    assert child.process.returncode == 2
    assert f"the emulator cannot listen on 127.0.0.1:{port}" in said(child)
    assert "Choose another with --port" in said(child)


async def test_a_settings_file_must_be_text(stage: Stage) -> None:
    """A .env in another encoding is refused by its name; one that is right is read."""
    (stage.folder / ".env").write_bytes(b"TALLY_CHANNELS=caf\xe9\n")
    wrong = await stage.do("run", TALLY_CHANNELS=UNSET)
    (stage.folder / ".env").write_text("TALLY_CHANNELS=café\n")
    await stage.follow(TALLY_CHANNELS=UNSET)
    stage.react(channel="café")

    await stage.settles()
    assert wrong.process.returncode == 2
    assert "The file is not UTF-8 text. (.env: " in said(wrong)


async def test_a_redis_that_evicts_is_refused(stage: Stage) -> None:
    """Exit 4, with what to set; --allow-eviction accepts it."""
    await stage.redis.config_set("maxmemory-policy", "allkeys-lru")
    try:
        refused = await stage.do("run")
        child = stage.start("run", "--allow-eviction")
        await wait_until(lambda: stage.emulator.waiting > 0, what=lambda: child.err)
    finally:
        await stage.redis.config_set("maxmemory-policy", "noeviction")

    assert refused.process.returncode == 4
    assert "maxmemory-policy allkeys-lru" in said(refused)
    assert "Set it to noeviction, or accept lost counts with --allow-eviction." in said(refused)


@pytest.mark.parametrize(
    ("field", "value", "sentence"),
    [
        ("schema", "9", "holds schema 9; this worker writes schema 1"),
        ("subscribe_key", "sub-c-other", "holds the tallies of another keyset (sub-c-other, not sub-c-test)"),
        ("types", "only like", "counts only like; this worker is set to count all types but"),
    ],
)
async def test_a_namespace_of_somebody_else_is_left_alone(stage: Stage, field: str, value: str, sentence: str) -> None:
    """Exit 4, with whose it is and what to do; nothing is written there."""
    await stage.redis.hset("tally:meta", field, value)

    child = await stage.do("run")

    assert child.process.returncode == 4
    assert sentence in said(child)
    assert "TALLY_NAMESPACE" in said(child)
    assert await stage.redis.keys() == ["tally:meta"]


async def test_pubnub_out_of_reach_is_said_once(stage: Stage) -> None:
    """A worker goes on trying, says so once a minute, and says when it is over; doctor ends with 3."""
    port = free_port()
    worker = stage.start("run", PUBNUB_ORIGIN=f"127.0.0.1:{port}")
    doctor = await stage.do("doctor", PUBNUB_ORIGIN=f"127.0.0.1:{port}")
    await wait_until(lambda: bool(worker.entries("pubnub_unreachable")), what=lambda: worker.err)
    async with Emulator(port=port, subscribe_key=KEY):
        await wait_until(lambda: bool(worker.entries("pubnub_answers_again")), what=lambda: worker.err)
        (complaint,) = worker.entries("pubnub_unreachable")  # before it is out of reach once more

    assert "no connection" in complaint["reason"]
    assert worker.entries("pubnub_answers_again")[0]["failures"] >= 1
    assert doctor.process.returncode == 3
    assert "BAD  PubNub: PubNub, time: no connection." in said(doctor)


@pytest.mark.parametrize("kind", ["html", "empty_object", "list", "server_error", "throttle", "drop"])
async def test_an_outage_is_waited_out(stage: Stage, kind: str) -> None:
    """Whatever PubNub answers instead of an answer, the worker asks again from the same place, and says so once."""
    worker = await stage.follow()
    stage.react("👍")
    await stage.settles()

    stage.state.set_outage(kind)
    await wait_until(lambda: bool(worker.entries("pubnub_unreachable")), what=lambda: worker.err)
    stage.react("🎉")
    stage.state.set_outage(None)

    await stage.settles()
    assert len(worker.entries("pubnub_unreachable")) == len(worker.entries("pubnub_answers_again")) == 1
    said(worker)


async def test_a_refused_channel_leaves_others_alone(stage: Stage) -> None:
    """A 403 for one of three: the others live on, the refused one is owed, and only that one."""
    stage.state.refuse(["hall"])
    worker = await stage.follow(TALLY_CHANNELS="room,hall,yard")
    for channel in ("room", "yard", "hall"):
        stage.react(channel=channel)
    await wait_until(lambda: stage.redis.exists(f"tally:{{yard}}:counts:{MESSAGE}"), what=lambda: worker.err)

    assert "forbidden" in await stage.owed("hall")
    assert "forbidden" not in await stage.owed("room") | await stage.owed("yard")
    assert worker.entries("pubnub_refused")[0]["names"] == ["hall"]
    assert set(await stage.tallies()) == {"room", "yard"}
    said(worker)


def event(**changes: Any) -> dict[str, Any]:
    """Return an event as PubNub sends it; a change of ... leaves a member out."""
    data = {
        "type": "reaction",
        "value": "poison",
        "actionTimetoken": "17600000002020754",
        "messageTimetoken": MESSAGE,
    }
    data = {name: value for name, value in {**data, **changes.pop("data", {})}.items() if value is not ...}
    message = {
        "a": "5",
        "f": 0,
        "e": 3,
        "i": "mallory",
        "p": {"t": "17600000002110345", "r": 43},
        "k": "sub-c-test",
        "c": ROOM,
        "d": {"source": "actions", "version": "1.0", "event": "added", "data": data},
    }
    return {name: value for name, value in {**message, **changes}.items() if value is not ...}


MALFORMED: dict[str, tuple[object, str]] = {
    "no d": (event(d=...), "d is missing where an object belongs"),
    "d is text": (event(d="x"), "d is of type str where an object belongs"),
    "no data": (event(d={"event": "added"}), "data is missing where an object belongs"),
    "data is a list": (event(d={"event": "added", "data": []}), "data is of type list where an object belongs"),
    "type is a number": (event(data={"type": 1}), "type is of type int where text belongs"),
    "value is a number": (event(data={"value": 3.5}), "value is of type float where text belongs"),
    "value is true": (event(data={"value": True}), "value is of type bool where text belongs"),
    "value is missing": (event(data={"value": ...}), "value is missing where text belongs"),
    "value of 1 MB": (event(data={"value": "x" * 1_000_000}), "value has 1000000 bytes; PubNub accepts no more"),
    "uuid is an object": (event(data={"uuid": {}}), "uuid is of type dict where text belongs"),
    "nobody": (event(i=...), "uuid is missing where text belongs"),
    "surrogate in value": (event(data={"value": "\ud83d"}), "value holds a lone surrogate"),
    "surrogate in type": (event(data={"type": "\ud83d"}), "type holds a lone surrogate"),
    "surrogate in uuid": (event(i="\udc4d"), "uuid holds a lone surrogate"),
    "surrogate in channel": (event(c="\ud83d"), "c holds a lone surrogate"),
    "no channel": (event(c=...), "c is missing where text belongs"),
    "an empty channel": (event(c=""), "c is no channel name: A channel name is empty."),
    "a channel of dots": (event(c=".."), "c is no channel name: The channel name '..' would change"),
    "a channel with a colon": (event(c="a:b"), "c is no channel name: The channel name 'a:b' has ':' in it"),
    "a channel with a newline": (event(c="a\nb"), "c is no channel name: The channel name 'a\\nb' has"),
    "a channel of escapes": (event(c="\x1b[2J"), "c is no channel name: The channel name '\\x1b[2J' has"),
    "timetoken is a float": (event(data={"actionTimetoken": 1.7e16}), "actionTimetoken is of type float"),
    "timetoken is negative": (event(data={"actionTimetoken": -1}), "actionTimetoken is '-1', not a timetoken"),
    "timetoken is a word": (event(data={"messageTimetoken": "now"}), "messageTimetoken is 'now', not a timetoken"),
    "timetoken in other digits": (
        event(data={"messageTimetoken": "१२३"}),
        "messageTimetoken is '१२३', not a timetoken",
    ),
    "an unknown event": (event(d={"event": "edited", "data": {}}), "the event is 'edited', neither added nor removed"),
    "an event of no kind": (event(d={"event": ["added"], "data": {}}), "neither added nor removed"),
    "null": (None, "the message is not an object"),
    "a number": (5, "the message is not an object"),
    "text": ("x", "the message is not an object"),
    "a list": ([], "the message is not an object"),
}


async def test_what_is_malformed_is_quarantined(stage: Stage) -> None:
    """Each lands in the quarantine with its reason, stops no later event, and the cursor moves on."""
    worker = await stage.follow(TALLY_CHANNELS="room,a.*")
    for number, (name, (message, reason)) in enumerate(MALFORMED.items()):
        before = await stage.cursors()
        stage.state.inject(ROOM, raw=json.dumps(message))
        stage.react("👍", uuid=f"user-{number}")
        await stage.settles()

        assert reason in (await stage.quarantine())[-1]["reason"], name
        assert len(await stage.quarantine()) == number + 1, name
        await wait_until(lambda before=before: differ(stage, before))  # type: ignore[misc]
    assert worker.is_alive
    assert "\x1b" not in said(worker)
    assert await stage.redis.smembers("tally:channels") == {ROOM}


async def differ(stage: Stage, before: dict[str, dict[str, str]]) -> bool:
    """Whether a cursor has moved."""
    return await stage.cursors() != before


async def test_other_kinds_of_message_are_skipped(stage: Stage) -> None:
    """Messages, signals, files, objects, kinds nobody knows: neither counted nor quarantined, and they stop nothing."""
    await stage.follow()
    for message in ({}, event(e=...), event(e=0), event(e=1), event(e=2), event(e=4, d={}), event(e=99), event(e="x")):
        stage.state.inject(ROOM, message)
    stage.state.inject(ROOM, event(e=[], c=f"{ROOM}-pnpres", d={"action": "join"}))
    stage.react()

    await stage.settles()
    assert await stage.quarantine() == []


async def test_what_is_unusual_is_counted(stage: Stage) -> None:
    """A kind in a string, timetokens as whole numbers, no `p`: no digit is lost, and all are counted."""
    await stage.follow()
    exact = 17_600_000_002_020_753
    unusual = [
        event(e="3", i="one"),
        event(i="two", data={"actionTimetoken": exact, "messageTimetoken": int(MESSAGE)}),
        event(i="three", p=...),
        event(i="four", p={"t": "soon"}),
        event(i="nobody", data={"uuid": "five"}),
    ]
    for message in unusual:
        stage.state.inject(ROOM, message)

    async def are_five() -> bool:
        return await stage.tallies() == {ROOM: {MESSAGE: {"reaction": {"poison": 5}}}}

    await wait_until(are_five)
    actions = await stage.redis.hgetall(f"tally:{{{ROOM}}}:actions:{MESSAGE}")
    assert actions["reaction:poison:two"] == str(exact)
    assert set(actions) == {f"reaction:poison:{uuid}" for uuid in ("one", "two", "three", "four", "five")}
    assert await stage.quarantine() == []


async def test_hostile_names_are_counted_faithfully(stage: Stage) -> None:
    """Whatever stands in channel, type, value and user, it comes back as it was, and no terminal obeys it."""
    hostile = (":", "%", "%3A", "{}", "}{", "a:b:c", "\n", "\x1b[31m", "👨‍👩‍👧", "\u202e", "'; --", "\x00", "")
    worker = await stage.follow(TALLY_CHANNELS="{a}%,}{,👍,room,room-pnpres", TALLY_LOG_LEVEL="debug")
    for channel in ("{a}%", "}{", "👍", ROOM):
        for text in hostile:
            stage.state.add(channel, MESSAGE, text or "empty", text, text or "empty")

    await stage.settles()
    shown = await stage.do("show", "{a}%", MESSAGE)
    as_json = await stage.do("show", "{a}%", MESSAGE, "--json")
    assert json.loads(as_json.out)["counts"] == stage.emulator.truth()["{a}%"][MESSAGE]
    assert "\x1b" not in said(shown) + said(worker)
    assert "\\x1b[31m  \\x1b[31m  1" in shown.out


async def test_no_chat_message_holds_up_a_channel(stage: Stage) -> None:
    """Who may publish may send 5,000 digits, any depth of brackets, bytes that are no text: reactions count on."""
    depths = (5_000, *range(900, 1_000, 3))
    nested = ["[" * depth + "]" * depth for depth in depths]
    hostile = ["9" * 5_000, "NaN", '"\xff"', *nested, '{"a":' * 900 + "1" + "}" * 900]
    worker = await stage.follow()
    for payload in hostile:
        for kind in (0, 3):  # as it comes, and as if it were an action
            text = json.dumps(event(e=kind, d="HERE")).replace('"HERE"', payload)
            message = Message(stage.state.stream.next_position(), text.encode("latin-1"), verbatim=True)
            stage.state.stream.deliver(ROOM, message)  # what `inject` would refuse
        stage.react("👍", uuid=payload[:5] + str(len(payload)))

        await stage.settles(5)
    assert len(await stage.quarantine()) == len(hostile)
    assert not worker.entries("pubnub_unreachable")
    said(worker)
