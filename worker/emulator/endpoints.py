"""PubNub's endpoints, except the one that waits: each takes the state and a call, and returns the reply."""

import json
from collections.abc import Callable
from json.encoder import encode_basestring_ascii as quote
from typing import Final

from worker.emulator.calls import Call
from worker.emulator.history import MAX_ITEMS, Page, Window
from worker.emulator.replies import RefusedError, Reply, html_reply, invalid_input, json_reply
from worker.emulator.state import Change, State

Endpoint = Callable[[State, Call], Reply]


def list_actions(state: State, call: Call) -> Reply:
    """Answer one page of a channel's actions; more than 100 at once are never given."""
    limit = call.bound("limit")
    if limit == 0:
        raise RefusedError(invalid_input("Not above zero", ["limit"], "query"))
    window = Window(call.bound("start"), call.bound("end"), min(limit or MAX_ITEMS, MAX_ITEMS))
    page = state.page(call.text("channel"), window)
    listed = ",".join(action.json() for action in page.actions)
    return Reply(200, f'{{"status":200,"data":[{listed}]{_more(call, page, window)}}}'.encode())


def _more(call: Call, page: Page, window: Window) -> str:
    if page.more is None:
        return ""
    end = "" if window.end is None else f"&end={window.end}"
    url = f"/v1/actions/{call.path['key']}/channel/{call.path['channel']}?start={page.more}{end}&limit={window.limit}"
    bounds = f'"start":"{page.more}",' + ("" if window.end is None else f'"end":"{window.end}",')
    return f',"more":{{"url":{quote(url)},{bounds}"limit":{window.limit}}}'


def add_action(state: State, call: Call) -> Reply:
    """Store what the body says; 207 if no event will tell of it."""
    uuid = call.uuid()
    type, value = _type_and_value(call.body)
    change = state.add(call.text("channel"), call.text("message"), type, value, uuid)
    return _changed(
        change, change.actions[-1].json(), "Stored but failed to publish message action."
    )


def _type_and_value(body: bytes) -> tuple[str, str]:
    try:
        document = json.loads(body)
    except ValueError as error:
        raise RefusedError(invalid_input("Invalid JSON", ["body"], "body")) from error
    fields = document if isinstance(document, dict) else {}
    if missing := [name for name in ("type", "value") if name not in fields]:
        raise RefusedError(invalid_input("Missing field", missing, "body"))
    type, value = fields["type"], fields["value"]
    if not isinstance(type, str) or not isinstance(value, str):
        raise RefusedError(html_reply(500, "Internal Server Error"))
    return type, value


def remove_action(state: State, call: Call) -> Reply:
    """Remove the user's actions of that timetoken; 207 if no event will tell of it."""
    change = state.remove(
        call.text("channel"), call.text("message"), call.number("action"), call.uuid()
    )
    return _changed(change, "{}", "Deleted but failed to publish message action.")


def _changed(change: Change, data: str, warning: str) -> Reply:
    if change.published:
        return Reply(200, f'{{"status":200,"data":{data}}}'.encode())
    error = f'{{"source":"actions","message":{quote(warning)}}}'
    return Reply(207, f'{{"status":207,"data":{data},"error":{error}}}'.encode())


def tell_time(state: State, call: Call) -> Reply:  # noqa: ARG001 - every endpoint has this shape
    """Answer the present as a timetoken."""
    return Reply(200, b"[%d]" % state.time.now())


def _publisher(kind: int) -> Endpoint:
    def publish(state: State, call: Call) -> Reply:
        text = (
            call.text("message") if "message" in call.path else call.body.decode(errors="replace")
        )
        try:
            payload = json.loads(text)
        except ValueError:
            return json_reply([0, "Invalid JSON", str(state.time.now())], 400)
        uuid = call.query.get("uuid", "")
        return json_reply(
            [1, "Sent", state.publish(call.text("channel"), payload, uuid, kind=kind)]
        )

    return publish


def change_group(state: State, call: Call) -> Reply:
    """Add to a channel group, remove from it, or list it: one path, told apart by the query."""
    group = call.text("group")
    if (added := call.query.get("add")) is not None:
        state.groups.add(group, filter(None, added.split(",")))
    elif (removed := call.query.get("remove")) is not None:
        state.groups.remove(group, removed.split(","))
    else:
        payload = {"channels": state.groups.channels(group), "group": group}
        return json_reply(
            {"status": 200, "payload": payload, "service": "channel-registry", "error": False}
        )
    return _REGISTERED


def remove_group(state: State, call: Call) -> Reply:
    """Remove a channel group."""
    state.groups.remove(call.text("group"))
    return _REGISTERED


def note_presence(state: State, call: Call) -> Reply:  # noqa: ARG001 - every endpoint has this shape
    """Answer heartbeats and farewells, which change nothing here."""
    return json_reply({"status": 200, "message": "OK", "service": "Presence"})


_REGISTERED: Final = json_reply(
    {"status": 200, "message": "OK", "service": "channel-registry", "error": False}
)
_ACTIONS: Final = "/v1/message-actions/{key}/channel/{channel}"
_GROUP: Final = "/v1/channel-registration/sub-key/{key}/channel-group/{group}"
_PRESENCE: Final = "/v2/presence/sub-key/{key}/channel/{channels}"

ENDPOINTS: Final[dict[tuple[str, str], tuple[str, Endpoint]]] = {
    ("GET", _ACTIONS): ("actions", list_actions),
    ("POST", _ACTIONS + "/message/{message}"): ("add", add_action),
    ("DELETE", _ACTIONS + "/message/{message}/action/{action}"): ("remove", remove_action),
    ("GET", "/time/0"): ("time", tell_time),
    ("GET", "/publish/{publish_key}/{key}/0/{channel}/0/{message}"): ("publish", _publisher(0)),
    ("POST", "/publish/{publish_key}/{key}/0/{channel}/0"): ("publish", _publisher(0)),
    ("GET", "/signal/{publish_key}/{key}/0/{channel}/0/{message}"): ("signal", _publisher(1)),
    ("GET", _GROUP): ("groups", change_group),
    ("GET", _GROUP + "/remove"): ("groups", remove_group),
    ("GET", _PRESENCE + "/heartbeat"): ("presence", note_presence),
    ("GET", _PRESENCE + "/leave"): ("presence", note_presence),
}
