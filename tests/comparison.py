"""Redis held against the truth, and against itself: a line of text for each difference."""

from collections import Counter
from collections.abc import Iterable
from typing import Any
from urllib.parse import unquote

from tests.worlds import World
from worker.emulator import State, Truth

TallyKey = tuple[str, str, str, str]
"""Channel, message timetoken, type, value."""


def differences(found: Truth, truth: Truth) -> list[str]:
    """Return a line for every tally that is not what it should be."""
    ours, theirs = _flat(found), _flat(truth)
    wrong = [key for key in ours.keys() | theirs.keys() if ours[key] != theirs[key]]
    return [f"{' '.join(key)}: {ours[key]} instead of {theirs[key]}" for key in sorted(wrong)]


def _flat(tallies: Truth) -> Counter[TallyKey]:
    flat: Counter[TallyKey] = Counter()
    for channel, messages in tallies.items():
        for message, types in messages.items():
            for type, values in types.items():
                for value, count in values.items():
                    flat[channel, message, type, value] = count
    return flat


async def strangers(redis: Any, state: State, channels: Iterable[str]) -> list[str]:
    """Return a line for every user who is counted and has not reacted, or the other way round.

    Two such mistakes can make a count that is right.
    """
    lines = []
    for channel in channels:
        ours = await _counted(redis, channel)
        theirs = _reacted(state, channel)
        lines += [
            f"{channel} {' '.join(key)}: counted, but absent" for key in sorted(ours - theirs)
        ]
        lines += [f"{channel} {' '.join(key)}: not counted" for key in sorted(theirs - ours)]
    return lines


async def _counted(redis: Any, channel: str) -> set[TallyKey]:
    """Return (message timetoken, type, value, user) of every live entry."""
    counted = set()
    async for key in redis.scan_iter(f"tally:{{{channel}}}:actions:*", count=1000):
        message = key.rpartition(":")[2]
        for field in await redis.hkeys(key):
            type, value, user = field.split(":", 2)
            counted.add((message, unquote(type), unquote(value), user))
    return counted


def _reacted(state: State, channel: str) -> set[TallyKey]:
    identities = [action.identity for action in state.actions(channel)]
    return {(it.message_timetoken, it.type, it.value, it.uuid) for it in identities}


async def broken_tallies(redis: Any) -> list[str]:
    """Return a line for every message whose counts are not its live entries.

    Both hashes are read in one transaction: the promise is that they agree at every instant.
    """
    lines = []
    for channel, message in sorted(await _messages(redis)):
        async with redis.pipeline(transaction=True) as pipe:
            pipe.hgetall(f"{channel}:counts:{message}")
            pipe.hkeys(f"{channel}:actions:{message}")
            counts, fields = await pipe.execute()
        counted = {tally: int(count) for tally, count in counts.items()}
        live = dict(Counter(map(_tally, fields)))
        if counted != live:
            lines.append(f"{channel}:counts:{message} is {counted}, but live are {live}")
    return lines


async def _messages(redis: Any) -> set[tuple[str, str]]:
    messages = set()
    for kind in ("counts", "actions"):
        async for key in redis.scan_iter(f"tally:{{*}}:{kind}:*", count=1000):
            channel, _, message = key.rpartition(f":{kind}:")
            messages.add((channel, message))
    return messages


def _tally(field: str) -> str:
    """Return the tally of an action. The type stays encoded there; the value does not."""
    type, value, _ = field.split(":", 2)
    return f"{type}:{unquote(value)}"


async def compare(world: World, channels: Iterable[str]) -> list[str]:
    """Return every difference of a world from PubNub's truth: in counts, and in who is counted."""
    wrong = differences(await world.tallies(), world.emulator.truth())
    return wrong + await strangers(world.redis, world.state, channels)
