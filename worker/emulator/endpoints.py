"""PubNub's endpoints, except subscribe, and one of the emulator's own.

Each takes the state and a call, and returns the reply.
"""

import json
import re
from collections.abc import Callable
from json.encoder import encode_basestring_ascii as quote
from typing import Final

from worker.emulator.actions import Action
from worker.emulator.calls import Call
from worker.emulator.replies import (
    RefusedError,
    Reply,
    html_reply,
    invalid_input,
    json_reply,
    service_error,
)
from worker.emulator.state import Change, State
from worker.emulator.storage import MAX_ITEMS, Page, Window
from worker.emulator.tokens import read_grant

Endpoint = Callable[[State, Call], Reply]


def list_actions(state: State, call: Call) -> Reply:
    """Answer one page of a channel's actions, of 100 at most."""
    window = _window(call)
    channel = call.text("channel")
    page = state.page(channel, window)
    actions = ",".join(map(Action.json, page.actions))
    more = _more(call, page, window)
    body = f'{{"status":200,"data":[{actions}]{more}}}'
    return Reply(200, body.encode())


def _window(call: Call) -> Window:
    limit = call.bound("limit")
    if limit == 0:
        refusal = invalid_input("Not above zero", ["limit"], "query")
        raise RefusedError(refusal)

    start = call.bound("start")
    end = call.bound("end")
    return Window(start, end, min(limit or MAX_ITEMS, MAX_ITEMS))


def _more(call: Call, page: Page, window: Window) -> str:
    if page.more is None:
        return ""

    parameters: dict[str, object] = {"start": str(page.more)}
    if window.end is not None:
        parameters["end"] = str(window.end)
    parameters["limit"] = window.limit

    key = call.path["key"]
    channel = call.path["channel"]
    query = "&".join(f"{name}={value}" for name, value in parameters.items())
    url = f"/v1/actions/{key}/channel/{channel}?{query}"
    more = json.dumps({"url": url, **parameters})
    return f',"more":{more}'


def add_action(state: State, call: Call) -> Reply:
    """Store an action. The status is 207 if no event is published."""
    uuid = call.uuid()
    type, value = _type_and_value(call.body)
    channel = call.text("channel")
    message = _message(call)
    change = state.add(channel, message, type, value, uuid)
    action = change.actions[-1]
    return _changed(change, action.json(), "Stored but failed to publish message action.")


def _message(call: Call) -> str:
    """Return the message's timetoken as it was sent: a number of any length."""
    call.number("message")
    return call.text("message")


def _type_and_value(body: bytes) -> tuple[str, str]:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        refusal = invalid_input("Invalid JSON", ["body"], "body")
        raise RefusedError(refusal) from None

    fields = document if isinstance(document, dict) else {}
    missing = {"type", "value"}.difference(fields)
    if missing:
        names = sorted(missing)
        refusal = invalid_input("Missing field", names, "body")
        raise RefusedError(refusal)

    texts = fields["type"], fields["value"]
    if set(map(type, texts)) != {str}:
        raise RefusedError(html_reply(500, "Internal Server Error"))
    return texts


def remove_action(state: State, call: Call) -> Reply:
    """Remove a user's actions. The status is 207 if no event is published."""
    timetoken = call.number("action")
    channel = call.text("channel")
    message = _message(call)
    uuid = call.uuid()
    change = state.remove(channel, message, timetoken, uuid)
    return _changed(change, "{}", "Deleted but failed to publish message action.")


def _changed(change: Change, data: str, warning: str) -> Reply:
    if change.published:
        body = f'{{"status":200,"data":{data}}}'
        return Reply(200, body.encode())

    message = quote(warning)
    error = f'{{"source":"actions","message":{message}}}'
    body = f'{{"status":207,"data":{data},"error":{error}}}'
    return Reply(207, body.encode())


def report_time(state: State, _call: Call) -> Reply:
    """Answer the present as a timetoken."""
    return Reply(200, b"[%d]" % state.time.now())


def publish_message(state: State, call: Call) -> Reply:
    """Publish an ordinary message, given in the path or the body."""
    text = call.body.decode(errors="replace")
    if "message" in call.path:
        text = call.text("message")

    try:
        payload = json.loads(text)
    except (ValueError, RecursionError):
        now = str(state.time.now())
        return json_reply([0, "Invalid JSON", now], 400)

    channel = call.text("channel")
    uuid = call.query.get("uuid", "")
    timetoken = state.publish(channel, payload, uuid)
    return json_reply([1, "Sent", timetoken])


def change_group(state: State, call: Call) -> Reply:
    """Add to a channel group, remove from it, or list it.

    The path is the same. The query has ``add``, ``remove`` or neither.
    """
    group = call.text("group")
    added = call.query.get("add", "").split(",")
    removed = call.query.get("remove", "").split(",")
    state.groups.add(group, filter(None, added))
    state.groups.remove(group, removed)
    if "add" in call.query or "remove" in call.query:
        return _REGISTERED

    channels = state.groups.channels(group)
    payload = {"channels": channels, "group": group}
    return _registry_reply(payload=payload)


def remove_group(state: State, call: Call) -> Reply:
    """Remove a channel group."""
    group = call.text("group")
    channels = state.groups.channels(group)
    state.groups.remove(group, channels)
    return _REGISTERED


def _registry_reply(**more: object) -> Reply:
    document = {
        "status": 200,
        **more,
        "service": "channel-registry",
        "error": False,
    }
    return json_reply(document)


def note_presence(_state: State, _call: Call) -> Reply:
    """Answer heartbeats and leaves, which change nothing here."""
    return json_reply({"status": 200, "message": "OK", "service": "Presence"})


def grant_token(state: State, call: Call) -> Reply:
    """Answer a token. Only a signed request comes here."""
    try:
        grant = read_grant(json.loads(call.body))
        if not state.access.is_on:
            return service_error(403, "Access Manager is off")
        token = state.access.grant(grant)
    except _MALFORMED:
        return service_error(400, "Invalid grant")

    document = {
        "data": {"message": "Success", "token": token},
        "service": "Access Manager",
        "status": 200,
    }
    return json_reply(document)


def report_truth(state: State, _call: Call) -> Reply:
    """Answer the true counts, published events and stored actions.

    A subscriber whose cursor is at a channel's position has its last message.
    """
    positions = state.stream.positions()
    truth = {
        "channels": state.truth(),
        "events": state.published,
        "actions": state.live(),
        "positions": {channel: str(position) for channel, position in positions.items()},
    }
    return json_reply(truth)


_MALFORMED: Final = (
    ValueError,
    TypeError,
    AttributeError,
    KeyError,
    OverflowError,
    RecursionError,
    re.error,
)
_REGISTERED: Final = _registry_reply(message="OK")
_ACTIONS: Final = "/v1/message-actions/{key}/channel/{channel}"
_MESSAGE: Final = _ACTIONS + "/message/{message}"
_PUBLISH: Final = "/publish/{publish_key}/{key}/0/{channel}/0"
_GROUP: Final = "/v1/channel-registration/sub-key/{key}/channel-group/{group}"
_PRESENCE: Final = "/v2/presence/sub-key/{key}/channel/{channels}"

Route = tuple[str, str]
"""Method and path."""

ENDPOINTS: Final[dict[Route, tuple[str, Endpoint]]] = {
    ("GET", _ACTIONS): ("actions", list_actions),
    ("POST", _MESSAGE): ("add", add_action),
    ("DELETE", _MESSAGE + "/action/{action}"): ("remove", remove_action),
    ("GET", "/time/0"): ("time", report_time),
    ("GET", _PUBLISH + "/{message}"): ("publish", publish_message),
    ("POST", _PUBLISH): ("publish", publish_message),
    ("GET", _GROUP): ("groups", change_group),
    ("GET", _GROUP + "/remove"): ("groups", remove_group),
    ("GET", _PRESENCE + "/heartbeat"): ("presence", note_presence),
    ("GET", _PRESENCE + "/leave"): ("presence", note_presence),
    ("POST", "/v3/pam/{key}/grant"): ("grant", grant_token),
    ("GET", "/emulator/truth"): ("control", report_truth),
}
