"""Bad input gets a sentence and stops nothing else. More in ``tests/commands``."""

import asyncio
import json

from tests.processes import Child
from tests.waiting import wait_until
from tests.worlds import ROOM, World, envelope

event = envelope  # tests/commands/test_bad_input.py imports it


def written(child: Child) -> str:
    """Return all that a command wrote; none of it is a traceback."""
    assert "Traceback" not in child.out + child.err, child.err
    return child.out + child.err


async def test_a_wrong_line_or_setting_ends_the_process(world: World) -> None:
    """Exit code 2, and on standard error a sentence for each thing that is wrong."""
    world.settings.clear()
    child = await world.do("run")

    assert (child.process.returncode, child.out) == (2, "")
    assert child.err.startswith("tally: ")
    assert "PUBNUB_SUBSCRIBE_KEY is not set. Copy" in child.err
    assert "Nothing to follow: set TALLY_CHANNELS" in written(child)


async def test_a_port_in_use_ends_the_process(world: World) -> None:
    """Exit code 2, with the address: of the emulator, and of a worker's pages."""
    address = world.emulator.origin
    emulator, worker = await asyncio.gather(
        world.do("emulator", "--port", address.partition(":")[2]),
        world.do("run", TALLY_HTTP=address),
    )

    assert (emulator.process.returncode, worker.process.returncode) == (2, 2)
    assert f"the emulator cannot listen on {address}" in written(emulator)
    assert "Choose another with --port" in written(emulator)
    assert f"tally: TALLY_HTTP: cannot listen at {address}" in written(worker)
    assert not world.emulator.requests["subscribe"]


async def test_a_redis_that_evicts_is_refused(world: World) -> None:
    """Exit code 4, and the setting that is needed; --allow-eviction accepts it."""
    await world.redis.config_set("maxmemory-policy", "allkeys-lru")
    try:
        accepted = world.start("run", "--allow-eviction")
        refused = await world.do("run")
        await wait_until(lambda: world.emulator.waiting > 0, what=accepted.tail)
    finally:
        await world.redis.config_set("maxmemory-policy", "noeviction")

    assert refused.process.returncode == 4
    assert "maxmemory-policy allkeys-lru" in written(refused)
    assert "Set it to noeviction, or accept lost counts with --allow-eviction." in written(refused)


CONTROL = "c is no channel name: The channel name "
MALFORMED: dict[str, tuple[object, str]] = {
    "no d": (event(d=...), "d is missing where an object belongs"),
    "value is a number": (event(data={"value": 3.5}), "value is of type float where text belongs"),
    "value is 1 MB": (event(data={"value": "x" * 1_000_000}), "value has 1000000 bytes"),
    "surrogate in value": (event(data={"value": "\ud83d"}), "value holds a lone surrogate"),
    "no uuid": (event(i=...), "uuid is missing where text belongs"),
    "timetoken is a word": (event(data={"messageTimetoken": "now"}), "'now', not a timetoken"),
    "unknown event": (event(event="edited"), "the event is 'edited', neither added nor removed"),
    "surrogate in channel": (event(c="\ud83d"), "c holds a lone surrogate"),
    "no channel": (event(c=...), "c is missing where text belongs"),
    "empty channel": (event(c=""), "c is no channel name: A channel name is empty."),
    "channel of dots": (event(c=".."), f"{CONTROL}'..' would change"),
    "channel with a colon": (event(c="a:b"), f"{CONTROL}'a:b' has ':' in it"),
    "channel with a newline": (event(c="a\nb"), f"{CONTROL}'a\\nb' has"),
    "channel of escapes": (event(c="\x1b[2J"), f"{CONTROL}'\\x1b[2J' has"),
    "null": (None, "the message is not an object"),
    "list": ([], "the message is not an object"),
}
"""What is wrong, a message, and a part of the reason. ``tests/source/test_wire.py`` has more."""


async def test_a_malformed_event_is_quarantined(world: World) -> None:
    """Each is quarantined with its reason, stops no later event, and the cursor moves on."""
    worker = await world.follow(TALLY_CHANNELS="room,a.*")
    for number, (message, _) in enumerate(MALFORMED.values()):
        world.state.inject(ROOM, raw=json.dumps(message))
        world.react("👍", uuid=f"user-{number}")
    last = world.state.actions(ROOM)[-1].timetoken

    async def has_moved_on() -> bool:
        cursors = await world.cursors()
        return any(int(cursor["timetoken"]) >= last for cursor in cursors.values())

    await world.settles()
    await wait_until(has_moved_on, what=worker.tail)
    reasons = [entry["reason"] for entry in await world.quarantine()]
    for name, (_, expected) in MALFORMED.items():
        matching = [reason for reason in reasons if expected in reason]
        assert matching, name
        reasons.remove(matching[0])
    assert reasons == []
    assert worker.is_alive
    assert "\x1b" not in written(worker)
    assert await world.redis.smembers("tally:channels") == {ROOM}
