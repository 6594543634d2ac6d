"""What Redis shows, held against the truth; and against itself."""

from collections import Counter
from typing import Any
from urllib.parse import unquote

from worker.emulator import Truth

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
            found.append(f"{channel}:counts:{message} is {counted}, but live are {dict(Counter(map(_tally, actions)))}")
    return found


def _tally(action: str) -> str:
    """Return the tally an action belongs to: its value is percent-encoded, that of a tally is not."""
    type, value, _ = action.split(":", 2)
    return f"{type}:{unquote(value)}"
