"""A client that comes again while the hub is behind: it never sees an older count."""

import json
from dataclasses import dataclass, field
from typing import Any

from reaction_tally import Change, Reset
from tests.histories import CHANNEL, MESSAGE
from worker.api.subscriber import Subscriber

BEHIND, HERE, AHEAD = "1000-9", "1001-0", "1001-10"
OTHER = "other"


@dataclass
class Client:
    """A client that has caught up to a position of its channel."""

    received: list[bytes] = field(default_factory=list)
    subscriber: Subscriber = field(init=False)

    def __post_init__(self) -> None:
        self.subscriber = Subscriber([CHANNEL], self.received.append)

    def begin(self, *missed: Change) -> list[Any]:
        """Begin; return the counts that come first."""
        first = self.subscriber.begin({CHANNEL: HERE}, missed)
        return [fields["count"] for fields in map(data, first) if fields]

    @property
    def counts(self) -> list[tuple[str, int]]:
        """What was sent since, by value."""
        documents = [data(event) for event in self.received]
        return [(document["value"], document["count"]) for document in documents]


def data(event: bytes) -> dict[str, Any]:
    """Return the data of an event; nothing if it is an id alone."""
    found: dict[str, Any] = json.loads(event.partition(b"data: ")[2] or "{}")
    return found


def change(count: int, position: str, value: str = "👍") -> Change:
    """Return a count as the hub finds it."""
    return Change(
        channel=CHANNEL,
        message_timetoken=MESSAGE,
        type="reaction",
        value=value,
        count=count,
        position=position,
    )


def test_an_older_count_is_left_out() -> None:
    """Whether the hub finds it before the client begins, or later."""
    client = Client()
    client.subscriber.take(change(1, "999-0"))
    assert client.begin() == []

    client.subscriber.take(change(2, BEHIND))
    client.subscriber.take(change(3, AHEAD))

    assert client.counts == [("👍", 3)]
    assert client.subscriber.id == AHEAD


def test_changes_read_together_stay_together() -> None:
    """Only the last one has the position of their end, and the others may stand nowhere else."""
    client = Client()
    client.begin()
    client.subscriber.take(change(7, BEHIND, "🎉"))
    client.subscriber.take(change(3, AHEAD))

    assert client.counts == [("🎉", 7), ("👍", 3)]
    assert data(client.received[0])["position"] == HERE


def test_changes_that_end_behind_are_older_together() -> None:
    """The end may be where the client is: it knows that count."""
    client = Client()
    client.begin()
    for end in ("1000-8", BEHIND, HERE):
        client.subscriber.take(change(1, "999-0", "🎉"))
        client.subscriber.take(change(2, end))
    client.subscriber.take(change(4, HERE, "🎉"))
    client.subscriber.take(change(5, AHEAD))

    assert client.counts == [("👍", 2), ("🎉", 4), ("👍", 5)]


def test_what_was_missed_moves_the_client() -> None:
    """What the hub found of it meanwhile is older."""
    client = Client()
    client.subscriber.take(change(4, HERE))
    client.subscriber.take(change(5, "1001-9"))

    assert client.begin(change(6, AHEAD)) == [6]
    assert client.subscriber.id == AHEAD


def test_a_reset_is_never_left_out() -> None:
    """Redis went back, so its position is an older one. The counts after it come."""
    client = Client()
    client.begin()
    client.subscriber.take(Reset(CHANNEL, BEHIND))
    client.subscriber.take(change(2, "1000-10"))

    assert [event.split(b"\n")[1] for event in client.received] == [
        b"event: reset",
        b"event: change",
    ]
    assert client.subscriber.id == "1000-10"
