"""What Redis shows, held against the truth; and against itself."""

from collections import Counter
from collections.abc import Iterable
from typing import Any
from urllib.parse import unquote

from worker.emulator import State, Truth

Flat = dict[tuple[str, str, str, str], int]


def differences(found: Truth, truth: Truth) -> list[str]:
    """Return a line for every tally that is not what it should be."""
    ours, theirs = _flat(found), _flat(truth)
    return [
        f"{' '.join(tally)}: {ours.get(tally, 0)} instead of {theirs.get(tally, 0)}"
        for tally in sorted(ours.keys() | theirs.keys())
        if ours.get(tally, 0) != theirs.get(tally, 0)
    ]


def _flat(truth: Truth) -> Flat:
    return {
        (channel, message, type, value): count
        for channel, messages in truth.items()
        for message, types in messages.items()
        for type, values in types.items()
        for value, count in values.items()
    }


async def strangers(redis: Any, state: State, channels: Iterable[str]) -> list[str]:
    """Return a line for every user who is counted and has not reacted, or the other way round.

    Two such mistakes can make a count that is right.
    """
    found = []
    for channel in channels:
        ours = {
            (key.rpartition(":")[2], *_read(action))
            async for key in redis.scan_iter(f"tally:{{{channel}}}:actions:*", count=1000)
            for action in await redis.hkeys(key)
        }
        theirs = {
            (of.message_timetoken, of.type, of.value, of.uuid)
            for of in (action.identity for action in state.actions(channel))
        }
        found += [
            f"{channel} {' '.join(who)}: counted, but not there" for who in sorted(ours - theirs)
        ]
        found += [
            f"{channel} {' '.join(who)}: there, but not counted" for who in sorted(theirs - ours)
        ]
    return found


async def broken_tallies(redis: Any) -> list[str]:
    """Return a line for every message whose counts are not its live entries, or that holds a count below 1.

    Both hashes are read in one transaction: the promise is that they agree at every instant.
    """
    messages = set[tuple[str, str]]()
    for kind in ("counts", "actions"):
        async for key in redis.scan_iter(f"tally:{{*}}:{kind}:*", count=1000):
            channel, _, message = key.rpartition(f":{kind}:")
            messages.add((channel, message))
    found = []
    for channel, message in sorted(messages):
        async with redis.pipeline(transaction=True) as pipe:
            pipe.hgetall(f"{channel}:counts:{message}").hgetall(f"{channel}:actions:{message}")
            counts, actions = await pipe.execute()
        counted = {tally: int(count) for tally, count in counts.items()}
        if counted != Counter(map(_tally, actions)):
            found.append(
                f"{channel}:counts:{message} is {counted}, but live are {dict(Counter(map(_tally, actions)))}"
            )
    return found


def _tally(action: str) -> str:
    """Return the tally an action belongs to. Its type stays encoded there; its value does not."""
    type, value, _ = action.split(":", 2)
    return f"{type}:{unquote(value)}"


def _read(action: str) -> tuple[str, str, str]:
    """Return type, value and user of an action's field."""
    type, value, user = action.split(":", 2)
    return unquote(type), unquote(value), user
