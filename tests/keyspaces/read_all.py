"""Reads all that a client can read, and prints it as JSON. Any release of the client can run it.

The line of standard input is JSON: url, messages (channel → message timetokens),
since (channel → position), until (channel → position).
"""

import json
import sys
from collections.abc import Mapping
from contextlib import closing
from dataclasses import asdict
from typing import Any

from reaction_tally import Reset, TallyReader

Asked = Mapping[str, Any]


def read_all(reader: TallyReader, asked: Asked) -> dict[str, Any]:
    """Return every kind of read."""
    reader.check()
    pages = {name: read_page(reader, name, asked) for name in asked["messages"]}
    return {
        "channels": sorted(reader.channels()),
        "in_doubt": sorted(reader.in_doubt(list(pages))),
        "pages": pages,
        "changes": read_changes(reader, asked),
    }


def read_page(reader: TallyReader, channel: str, asked: Asked) -> dict[str, Any]:
    """Return a page, who reacted, and the messages with the most reactions."""
    page = reader.page(channel, asked["messages"][channel], me="ana", names=3)
    who = [
        [message.timetoken, reaction.type, reaction.value, reactors]
        for message in page.messages.values()
        for reaction in message.reactions
        if (reactors := read_who(reader, channel, message.timetoken, reaction))
    ]
    return {
        "page": asdict(page) | {"messages": messages_of(page)},
        "who": sorted(who),
        "counts": reader.get_many(channel, asked["messages"][channel]),
        "top": [asdict(message) for message in reader.top(channel)],
        "recent": [asdict(message) for message in reader.recent(channel)],
    }


def messages_of(page: Any) -> dict[str, list[dict[str, Any]]]:
    """Return the reactions of each message; a large hash of Redis has no order among equals."""
    return {
        message.timetoken: sorted(map(asdict, message.reactions), key=json.dumps)
        for message in page.messages.values()
    }


def read_who(reader: TallyReader, channel: str, message: str, reaction: Any) -> list[str]:
    """Return the users of a tally, page by page."""
    users: list[str] = []
    after = None
    while True:
        who = reader.who(channel, message, reaction.type, reaction.value, limit=50, after=after)
        users += [reactor.user for reactor in who.reactors]
        after = who.after
        if after is None:
            assert len(users) == who.total == reaction.count
            return users


def read_changes(reader: TallyReader, asked: Asked) -> dict[str, Any]:
    """Return the newest count of each tally that changed since some positions."""
    held, until = dict(asked["since"]), asked["until"]
    counts: dict[str, int] = {}
    resets: list[str] = []
    if held == until:
        return {"counts": counts, "resets": resets}
    with closing(reader.changes(list(held), since=held)) as changes:
        for change in changes:
            held[change.channel] = change.position
            if isinstance(change, Reset):
                resets.append(change.channel)
            else:
                tally = [change.channel, change.message_timetoken, change.type, change.value]
                counts[json.dumps(tally)] = change.count
            if held == until:
                return {"counts": counts, "resets": sorted(resets)}
    raise AssertionError("the changes ended")


def main() -> None:
    """Read, and print."""
    asked = json.loads(sys.stdin.readline())
    with TallyReader.from_url(asked["url"]) as reader:
        answer = read_all(reader, asked)
    json.dump(answer, sys.stdout, sort_keys=True)


if __name__ == "__main__":
    main()
