"""What is wrong is said in a sentence, stops nothing else, and loses no other event; more in ``tests/commands``."""

import asyncio
import json
from typing import Any

from tests.end_to_end.processes import MESSAGE, ROOM, Child, Stage, wait_until

UNSET = None


def said(child: Child) -> str:
    """Return what a command said, all of it, having made sure that it is no traceback."""
    assert "Traceback" not in child.out + child.err, child.err
    return child.out + child.err


async def test_a_wrong_line_or_setting_ends_the_process(stage: Stage) -> None:
    """As a shell sees it: an exit code, and on standard error a sentence for each thing that is wrong."""
    stage.settings.clear()
    child = await stage.do("run")

    assert (child.process.returncode, child.out) == (2, "")
    assert child.err.startswith("tally: ")
    assert "PUBNUB_SUBSCRIBE_KEY is not set. Copy" in child.err
    assert "Nothing to follow: set TALLY_CHANNELS" in said(child)


async def test_a_port_in_use_is_said(stage: Stage) -> None:
    """The emulator's command, and a worker's pages where somebody chose the port: exit 2, with the address."""
    address = stage.emulator.origin
    emulator, worker = await asyncio.gather(
        stage.do("emulator", "--port", address.partition(":")[2]),
        stage.do("run", TALLY_HTTP=address),
    )

    assert (emulator.process.returncode, worker.process.returncode) == (2, 2)
    assert f"the emulator cannot listen on {address}" in said(emulator)
    assert "Choose another with --port" in said(emulator)
    assert f"tally: TALLY_HTTP: cannot listen at {address}" in said(worker)
    assert not stage.emulator.requests["subscribe"]


async def test_a_redis_that_evicts_is_refused(stage: Stage) -> None:
    """Exit 4, with what to set; --allow-eviction accepts it."""
    await stage.redis.config_set("maxmemory-policy", "allkeys-lru")
    try:
        accepted = stage.start("run", "--allow-eviction")
        refused = await stage.do("run")
        await wait_until(lambda: stage.emulator.waiting > 0, what=lambda: accepted.err)
    finally:
        await stage.redis.config_set("maxmemory-policy", "noeviction")

    assert refused.process.returncode == 4
    assert "maxmemory-policy allkeys-lru" in said(refused)
    assert "Set it to noeviction, or accept lost counts with --allow-eviction." in said(refused)


def event(**changes: Any) -> dict[str, Any]:
    """Return an event as PubNub sends it; a change of ... leaves a member out."""
    data = {
        "type": "reaction",
        "value": "poison",
        "actionTimetoken": "17600000002020754",
        "messageTimetoken": MESSAGE,
    }
    data = {
        name: value
        for name, value in {**data, **changes.pop("data", {})}.items()
        if value is not ...
    }
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
    "data is a list": (
        event(d={"event": "added", "data": []}),
        "data is of type list where an object belongs",
    ),
    "type is a number": (event(data={"type": 1}), "type is of type int where text belongs"),
    "value is a number": (event(data={"value": 3.5}), "value is of type float where text belongs"),
    "value is true": (event(data={"value": True}), "value is of type bool where text belongs"),
    "value is missing": (event(data={"value": ...}), "value is missing where text belongs"),
    "value of 1 MB": (
        event(data={"value": "x" * 1_000_000}),
        "value has 1000000 bytes; PubNub accepts no more",
    ),
    "uuid is an object": (event(data={"uuid": {}}), "uuid is of type dict where text belongs"),
    "nobody": (event(i=...), "uuid is missing where text belongs"),
    "surrogate in value": (event(data={"value": "\ud83d"}), "value holds a lone surrogate"),
    "surrogate in type": (event(data={"type": "\ud83d"}), "type holds a lone surrogate"),
    "surrogate in uuid": (event(i="\udc4d"), "uuid holds a lone surrogate"),
    "surrogate in channel": (event(c="\ud83d"), "c holds a lone surrogate"),
    "no channel": (event(c=...), "c is missing where text belongs"),
    "an empty channel": (event(c=""), "c is no channel name: A channel name is empty."),
    "a channel of dots": (
        event(c=".."),
        "c is no channel name: The channel name '..' would change",
    ),
    "a channel with a colon": (
        event(c="a:b"),
        "c is no channel name: The channel name 'a:b' has ':' in it",
    ),
    "a channel with a newline": (
        event(c="a\nb"),
        "c is no channel name: The channel name 'a\\nb' has",
    ),
    "a channel of escapes": (
        event(c="\x1b[2J"),
        "c is no channel name: The channel name '\\x1b[2J' has",
    ),
    "timetoken is a float": (
        event(data={"actionTimetoken": 1.7e16}),
        "actionTimetoken is of type float",
    ),
    "timetoken is negative": (
        event(data={"actionTimetoken": -1}),
        "actionTimetoken is '-1', not a timetoken",
    ),
    "timetoken is a word": (
        event(data={"messageTimetoken": "now"}),
        "messageTimetoken is 'now', not a timetoken",
    ),
    "timetoken in other digits": (
        event(data={"messageTimetoken": "१२३"}),
        "messageTimetoken is '१२३', not a timetoken",
    ),
    "an unknown event": (
        event(d={"event": "edited", "data": {}}),
        "the event is 'edited', neither added nor removed",
    ),
    "an event of no kind": (event(d={"event": ["added"], "data": {}}), "neither added nor removed"),
    "null": (None, "the message is not an object"),
    "a number": (5, "the message is not an object"),
    "text": ("x", "the message is not an object"),
    "a list": ([], "the message is not an object"),
}


async def test_what_is_malformed_is_quarantined(stage: Stage) -> None:
    """Each lands in the quarantine with its reason, stops no later event, and the cursor moves on."""
    worker = await stage.follow(TALLY_CHANNELS="room,a.*")
    for number, (message, _) in enumerate(MALFORMED.values()):
        stage.state.inject(ROOM, raw=json.dumps(message))
        stage.react("👍", uuid=f"user-{number}")
    last = stage.state.actions(ROOM)[-1].timetoken

    async def has_moved_on() -> bool:
        return any(int(cursor["timetoken"]) >= last for cursor in (await stage.cursors()).values())

    await stage.settles()
    await wait_until(has_moved_on, what=lambda: worker.err[-3000:])
    reasons = [entry["reason"] for entry in await stage.quarantine()]
    for name, (_, expected) in MALFORMED.items():
        told = [reason for reason in reasons if expected in reason]
        assert told, name
        reasons.remove(told[0])
    assert reasons == []
    assert worker.is_alive
    assert "\x1b" not in said(worker)
    assert await stage.redis.smembers("tally:channels") == {ROOM}
