"""What a chat screen needs, in Python, with redis-py alone.

    pip install redis
    python read.py redis://localhost:6379 room ben 17600000001728660 17600000002110345

It prints the counts of the messages, which of them are ben's, and who chose each value of the first
message. Then it prints each change. Every line is JSON. (The client does this and more.)
"""

import json
import sys
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

from redis import Redis

NAMESPACE = "tally"
PAGE = 100
WAIT_MILLISECONDS = 1000
WHO_EPOCH = 17 * 10**15

CHANNEL_CODES = str.maketrans({"%": "%25", "{": "%7B", "}": "%7D"})
PART_CODES = str.maketrans({"%": "%25", ":": "%3A"})

Counts = dict[str, dict[str, int]]


def key_of(channel: str, name: str) -> str:
    """Return a key of a channel."""
    return f"{NAMESPACE}:{{{channel.translate(CHANNEL_CODES)}}}:{name}"


def action_field(type: str, value: str, user: str) -> str:
    """Return a field of ``actions``. In ``counts``, the value is raw."""
    return f"{type.translate(PART_CODES)}:{value.translate(PART_CODES)}:{user}"


def read_page(redis: Any, channel: str, messages: list[str]) -> dict[str, Any]:
    """Return the counts of messages at one instant, and the position in the journal."""
    pipe = redis.pipeline(transaction=True)
    pipe.get(key_of(channel, "head"))
    pipe.exists(key_of(channel, "owed"))
    for message in messages:
        pipe.hgetall(key_of(channel, f"counts:{message}"))
    head, owed, *hashes = pipe.execute()
    counts = dict(zip(messages, map(read_counts, hashes), strict=True))
    return {"position": head or "0-0", "in_doubt": bool(owed), "counts": counts}


def read_counts(fields: dict[str, str]) -> Counts:
    """Return type → value → count."""
    counts: Counts = {}
    for field, count in fields.items():
        type, value = field.split(":", 1)
        counts.setdefault(unquote(type), {})[value] = int(count)
    return counts


def read_mine(
    redis: Any, channel: str, message: str, counts: Counts, user: str
) -> list[dict[str, str]]:
    """Return which reactions of a message are a user's, and since when."""
    tallies = [(type, value) for type, values in counts.items() for value in values]
    if not tallies:
        return []
    fields = [action_field(type, value, user) for type, value in tallies]
    times = redis.hmget(key_of(channel, f"actions:{message}"), fields)
    return [
        {"type": type, "value": value, "at": at}
        for (type, value), at in zip(tallies, times, strict=True)
        if at is not None
    ]


def read_who(redis: Any, channel: str, message: str, type: str, value: str) -> list[dict[str, str]]:
    """Return who chose a value, oldest first, a hundred at most. Timetokens stay text."""
    prefix = action_field(type, value, "")
    who = key_of(channel, f"who:{message}:{prefix[:-1]}")
    pipe = redis.pipeline(transaction=True)
    pipe.hget(key_of(channel, f"counts:{message}"), f"{type.translate(PART_CODES)}:{value}")
    pipe.zcard(who)
    pipe.zrange(who, 0, PAGE - 1, withscores=True)
    count, size, users = pipe.execute()
    if size == int(count or 0):
        return [{"user": user, "at": str(int(score) + WHO_EPOCH)} for user, score in users]
    # Few have reacted, or the worker has not yet written all users.
    actions = redis.hgetall(key_of(channel, f"actions:{message}"))
    found = [
        {"user": field.removeprefix(prefix), "at": at}
        for field, at in actions.items()
        if field.startswith(prefix)
    ]
    return sorted(found, key=lambda action: (len(action["at"]), action["at"]))[:PAGE]


def changes_after(redis: Any, channel: str, position: str) -> Iterator[dict[str, Any]]:
    """Yield each change. End when the position is gone: read a new page then."""
    head, journal = key_of(channel, "head"), key_of(channel, "journal")
    while True:
        pipe = redis.pipeline(transaction=True)
        pipe.get(head)
        pipe.xrange(journal, f"({position}", "+", count=PAGE)
        newest, entries = pipe.execute()
        for entry_id, fields in entries:
            if fields["after"] != position:
                return  # an entry is missing
            for number in range(len(fields) - 2):
                yield read_change(fields[str(number)])
            position = entry_id
        if entries:
            continue
        if (newest or "0-0") != position:
            return  # Redis went back, or the journal expired
        redis.xread({journal: position}, block=WAIT_MILLISECONDS)


def read_change(text: str) -> dict[str, Any]:
    """Return a change: the count is absolute."""
    event, _, _, count, message, field = text.split(" ", 5)
    if event == "expired":
        return {"message": message, "expired": True}  # all its counts are gone
    type, value, _ = field.split(":", 2)
    return {
        "message": message,
        "type": unquote(type),
        "value": unquote(value),
        "count": int(count),
    }


def show(line: object) -> None:
    """Print a line of JSON."""
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def main(url: str, channel: str, user: str, *messages: str) -> None:
    """Print a page, then its changes; a new page when the position is gone."""
    redis = Redis.from_url(url, decode_responses=True)
    if redis.hget(f"{NAMESPACE}:meta", "schema") != "1":
        sys.exit(
            f"There are no tallies of schema 1 at {url}: check the database and the namespace."
        )
    while True:
        page = read_page(redis, channel, list(messages))
        show(page)
        first = messages[0]
        show({"mine": read_mine(redis, channel, first, page["counts"][first], user)})
        for type, values in page["counts"][first].items():
            for value in values:
                who = read_who(redis, channel, first, type, value)
                show({"type": type, "value": value, "who": who})
        for change in changes_after(redis, channel, page["position"]):
            show(change)


if __name__ == "__main__":
    main(*sys.argv[1:])
