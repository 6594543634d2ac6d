"""The PubNub that answers history with actions does what PubNub documents."""

import json

from tests.benchmarks.history import HISTORY, MAX_ACTIONS, Pubnub, Stored
from tests.benchmarks.listing import GetActions


def history(*actions: int) -> Pubnub:
    """Return a PubNub with messages 1, 2, 3… of so many actions."""
    messages = [
        Stored(number, json.dumps({"timetoken": str(number)}), count)
        for number, count in enumerate(actions, 1)
    ]
    return Pubnub(tuple(messages), GetActions({}))


def pages(pubnub: Pubnub) -> list[list[int]]:
    """Return the messages of each answer, page after page."""
    found = list[list[int]]()
    start = "1000"
    while True:
        answer = json.loads(pubnub(HISTORY, {"start": start, "max": "100"}))
        messages = [int(message["timetoken"]) for message in answer["channels"]["room"]]
        if not messages:
            return found
        found.append(messages)
        start = str(messages[0])


def test_an_answer_has_25_messages_at_most() -> None:
    """The newest come first, each answer ascending."""
    assert pages(history(*[1] * 60)) == [
        list(range(36, 61)),
        list(range(11, 36)),
        list(range(1, 11)),
    ]


def test_a_message_with_very_many_actions_comes_alone() -> None:
    """It is whole, and a link says that more was asked for."""
    pubnub = history(1, 1, MAX_ACTIONS, 1, 1)
    assert pages(pubnub) == [[4, 5], [3], [1, 2]]
    answer = json.loads(pubnub(HISTORY, {"start": "4", "max": "25"}))
    assert (answer["more"]["start"], answer["more"]["max"]) == ("3", 2)
