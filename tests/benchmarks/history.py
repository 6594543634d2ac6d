"""A page with its reactions from PubNub, without tallies, through its SDK.

PubNub's answers have the shape that is documented and recorded. Where the documentation says less,
the stand-in is kind: it is as quick as it can, and compresses every answer.
"""

import asyncio
import json
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from tests.benchmarks.harness import expect
from tests.benchmarks.listing import NOW, GetActions, listed
from tests.benchmarks.room import MESSAGES, ROOM, Screen
from worker.domain.action import Added

MAX_MESSAGES: Final = 25
"""PubNub answers so many messages with actions at most."""
MAX_ACTIONS: Final = 25_000
"""Where PubNub cuts an answer is not documented, except for this: a message with so many actions
comes alone, whole, with a link to the rest.
"""
HISTORY: Final = "/v3/history-with-actions/"


@dataclass(frozen=True, slots=True)
class Stored:
    """A message in PubNub's history."""

    timetoken: int
    text: str
    """The JSON that history-with-actions has of it."""
    actions: int


@dataclass(frozen=True, slots=True)
class Pubnub:
    """History with actions, and get-actions."""

    messages: tuple[Stored, ...]
    get_actions: GetActions

    def __call__(self, path: str, query: Mapping[str, str]) -> str:
        """Answer one request."""
        return self._history(query) if path.startswith(HISTORY) else self.get_actions(path, query)

    def _history(self, query: Mapping[str, str]) -> str:
        start = int(query.get("start", NOW))
        limit = min(MAX_MESSAGES, int(query.get("max", MAX_MESSAGES)))
        newest = bisect_left(self.messages, start, key=lambda message: message.timetoken)
        asked = self.messages[max(0, newest - limit) : newest]
        whole = complete(asked)
        texts = ", ".join(message.text for message in whole)
        more = link(whole[0].timetoken, len(asked) - len(whole)) if len(whole) < len(asked) else ""
        return (
            f'{{"status": 200, "channels": {{"{ROOM}": [{texts}]}}, '
            f'"error_message": "", "error": false{more}}}'
        )


def complete(messages: Sequence[Stored]) -> Sequence[Stored]:
    """Return the newest messages that fit an answer, one at least, each with all its actions."""
    count = 0
    for index in reversed(range(len(messages))):
        count += messages[index].actions
        if count > MAX_ACTIONS and index + 1 < len(messages):
            return messages[index + 1 :]
    return messages


def link(start: int, limit: int) -> str:
    """Return the link to messages that were cut off."""
    url = f"{HISTORY}sub-key/demo/channel/{ROOM}?start={start}&max={limit}"
    more = {"url": url, "start": str(start), "max": limit}
    return f', "more": {json.dumps(more)}'


def stored(added: Sequence[Added]) -> Pubnub:
    """Return a PubNub that holds the messages of the room with these actions."""
    actions: dict[str, list[Added]] = {message: [] for message in MESSAGES}
    for action in added:
        actions[action.identity.message_timetoken].append(action)
    messages = [
        Stored(int(message), document(number, message, of_it), len(of_it))
        for number, (message, of_it) in enumerate(actions.items())
    ]
    return Pubnub(tuple(messages), GetActions(listed(added)))


def document(number: int, message: str, added: Sequence[Added]) -> str:
    """Return a message as history-with-actions has it."""
    actions: dict[str, dict[str, list[dict[str, str]]]] = {}
    for action in added:
        identity = action.identity
        users = actions.setdefault(identity.type, {}).setdefault(identity.value, [])
        users.append({"uuid": identity.uuid, "actionTimetoken": action.action_timetoken})
    text = {"text": f"Message {number}"}
    return json.dumps({"message": text, "timetoken": message, "actions": actions})


async def history_with_actions(sdk: Any, me: str) -> Screen:
    """Read the page 25 messages a request: each request needs the answer before."""
    return await part_of_history(sdk, me, MESSAGES)


async def history_at_once(sdk: Any, me: str) -> Screen:
    """Do the same with all requests at once: somebody knows the timetokens of the messages."""
    starts = range(0, len(MESSAGES), MAX_MESSAGES)
    parts = [MESSAGES[start : start + MAX_MESSAGES] for start in starts]
    screens = await asyncio.gather(*(part_of_history(sdk, me, part) for part in parts))
    return {message: values for screen in screens for message, values in screen.items()}


async def part_of_history(sdk: Any, me: str, part: Sequence[str]) -> Screen:
    """Read messages that follow each other, from the newest to the oldest."""
    screen: Screen = {}
    start = int(part[-1]) + 1
    while len(screen) < len(part):
        count = min(MAX_MESSAGES, len(part) - len(screen))
        request = sdk.fetch_messages(ROOM, start=start, count=count, include_message_actions=True)
        answer = await request.future()
        expect(False, answer.is_error(), "history with actions")
        messages = answer.result.channels.get(ROOM)
        expect(True, bool(messages), "history with actions")
        for message in messages:
            screen[message.timetoken] = tallies(message.actions, me)
        # A short answer proves nothing. The SDK hides the link to more, and needs none.
        start = int(messages[0].timetoken)
    return screen


def tallies(actions: Mapping[str, Mapping[str, Any]], me: str) -> dict[str, tuple[int, bool]]:
    """Return value → count, and whether it is mine."""
    return {
        value: (len(users), any(user["uuid"] == me for user in users))
        for values in actions.values()
        for value, users in values.items()
    }


async def get_actions(sdk: Any, me: str) -> Screen:
    """Read every action since the page's first message, 100 a request, and count."""
    counts: dict[str, dict[str, int]] = {message: {} for message in MESSAGES}
    mine: set[tuple[str, str]] = set()
    start = str(NOW)
    while True:
        answer = await sdk.get_message_actions(ROOM, start).future()
        expect(False, answer.is_error(), "get-actions")
        actions = answer.result.actions
        for action in actions:
            values = counts[action.message_timetoken]
            values[action.value] = values.get(action.value, 0) + 1
            if action.uuid == me:
                mine.add((action.message_timetoken, action.value))
        # A short page proves nothing: only an empty one, or an action before the first message.
        if not actions or int(actions[0].action_timetoken) < int(MESSAGES[0]):
            break
        start = actions[0].action_timetoken
    return {
        message: {value: (count, (message, value) in mine) for value, count in values.items()}
        for message, values in counts.items()
    }
