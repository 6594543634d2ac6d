"""Stages: settings and names that are wrong, and limits of the machine."""

from collections.abc import AsyncIterator
from pathlib import Path

from tests.situations.places import silent_server
from tests.situations.staging import redis_of, set_all, settings, stage
from tests.worlds import KEYS, World

settings("no subscribe key", PUBNUB_SUBSCRIBE_KEY=None)
settings("nothing to follow", TALLY_CHANNELS=None)
settings("a type with a slip, reacton", TALLY_TYPES="reacton")
settings("a variable with a slip, TALLY_CHANELS", TALLY_CHANELS="room")
settings("a duration that is none, 1e3", TALLY_SETTLE_SECONDS="1e3")
settings("a number out of range", TALLY_HISTORY_RATE="0")
settings("a namespace with a space", TALLY_NAMESPACE="a b")
settings("a secret key without the publish key", PUBNUB_SECRET_KEY="sec-c-x")
settings("TALLY_TYPES as JSON", TALLY_TYPES='["reaction"]')
settings("TALLY_TYPES with a space between", TALLY_TYPES="reaction receipt")
settings("every type is ignored", TALLY_TYPES="edited")
settings("messages expire too soon", TALLY_RETENTION_DAYS="60s")

settings("channels as JSON", TALLY_CHANNELS='["room","news"]')
settings("channels in quotes, as docker's --env-file leaves them", TALLY_CHANNELS='"room,news"')
settings("channels in braces", TALLY_CHANNELS="{room,news}")
settings("channels as a list of YAML", TALLY_CHANNELS="- room\n- news")
settings("a character that nobody sees", TALLY_CHANNELS="room\u200b")
settings("semicolons between names", TALLY_CHANNELS="room;news")
settings("a wildcard without a dot", TALLY_CHANNELS="news*")
settings("a name that PubNub refuses", TALLY_CHANNELS="a:b")
settings("a channel group with a slip", TALLY_CHANNEL_GROUPS="nope")
settings("the file of channels is missing", TALLY_CHANNELS_FILE="{folder}/nowhere")
settings("the file of channels is a folder", TALLY_CHANNELS_FILE="{folder}")


@stage("the file of channels is empty")
async def empty_file(world: World) -> AsyncIterator[None]:
    """The file lists nothing, and nothing else names a channel."""
    file(world, "")
    set_all(world, {"TALLY_CHANNELS": None})
    yield


@stage("the file of channels holds JSON")
async def json_file(world: World) -> AsyncIterator[None]:
    """It is refused with its line."""
    file(world, '["room"]')
    yield


def file(world: World, content: str) -> Path:
    """Write the file of channels."""
    path = world.folder / "channels"
    path.write_text(content, "utf-8")
    set_all(world, {"TALLY_CHANNELS_FILE": str(path)})
    return path


@stage("another program has the port of TALLY_HTTP")
async def taken_port(world: World) -> AsyncIterator[None]:
    """It takes connections, and answers nothing."""
    async with silent_server() as port:
        set_all(world, {"TALLY_HTTP": str(port)})
        yield


@stage("too few open files for the channels")
async def few_files(world: World) -> AsyncIterator[None]:
    """As ``ulimit -n 80`` sets it."""
    names = ",".join(f"room{number}" for number in range(60))
    set_all(world, {"TALLY_CHANNELS": names, "TALLY_CHANNELS_PER_SUBSCRIPTION": "1"})
    world.wrapper = ("/bin/sh", "-c", 'ulimit -n 80; exec "$@"', "sh")
    yield


@stage("too few requests for the rounds")
async def low_rate(world: World) -> AsyncIterator[None]:
    """2,000 channels are known, and a request takes a quarter of an hour."""
    known = [f"room{number}" for number in range(2000)]
    await redis_of(world).sadd(KEYS.channels, *known)
    set_all(world, {"TALLY_HISTORY_RATE": "0.001"})
    yield
