"""The endpoints PubNub has not: what tests and the demo ask and tell the emulator, under /emulator/."""

import json
from typing import Any, Final

from worker.emulator.calls import Call
from worker.emulator.endpoints import Endpoint
from worker.emulator.replies import RefusedError, Reply, json_reply
from worker.emulator.state import State
from worker.emulator.trouble import OUTAGE_OPERATIONS


def _document(call: Call) -> dict[str, Any]:
    try:
        document = json.loads(call.body)
    except (ValueError, RecursionError) as error:
        raise _refused(f"the body is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise _refused("the body must be a JSON object")
    return document


def _refused(problem: str) -> RefusedError:
    return RefusedError(json_reply({"status": 400, "error": problem}, 400))


def tell_truth(state: State, call: Call) -> Reply:  # noqa: ARG001 - every endpoint has this shape
    """Answer the counts a perfect tally shows, the events published so far, and the actions stored."""
    return json_reply(
        {"channels": state.truth(), "events": state.published, "actions": state.live()}
    )


def list_everything(state: State, call: Call) -> Reply:
    """Answer all actions of a channel at once, untouched by faults."""
    listed = ",".join(action.json() for action in state.actions(call.text("channel")))
    return Reply(200, f'{{"actions":[{listed}]}}'.encode())


def set_faults(state: State, call: Call) -> Reply:
    """Replace the rates of all faults: `{name: rate}`."""
    try:
        state.faults.replace(_document(call))
    except ValueError as error:
        raise _refused(str(error)) from error
    return json_reply({"faults": state.faults.rates})


def set_access(state: State, call: Call) -> Reply:
    """Refuse `refuse_channels` and `refuse_groups`, and nothing else, from now on; running polls notice."""
    document = _document(call)
    state.refuse(_names(document, "refuse_channels"), _names(document, "refuse_groups"))
    return json_reply({"status": 200})


def set_outage(state: State, call: Call) -> Reply:
    """Begin an outage of some `kind` for these `operations`, or end it with kind null; running polls notice."""
    document = _document(call)
    operations = _names(document, "operations") if "operations" in document else OUTAGE_OPERATIONS
    try:
        state.set_outage(document.get("kind"), operations)
    except ValueError as error:
        raise _refused(str(error)) from error
    return json_reply({"status": 200})


def inject(state: State, call: Call) -> Reply:
    """Deliver `message` (any JSON) or `raw` (JSON text) to `channel`, verbatim, as an element of `m`."""
    document = _document(call)
    channel, raw = document.get("channel"), document.get("raw")
    if (
        not isinstance(channel, str)
        or not isinstance(raw, str | None)
        or ("message" in document) == (raw is not None)
    ):
        raise _refused("give `channel`, and either `message` (any JSON) or `raw` (JSON text)")
    try:
        state.inject(channel, document.get("message"), raw=raw)
    except ValueError as error:
        raise _refused(f"`raw` is not JSON: {error}") from error
    return json_reply({"status": 200})


def _names(document: dict[str, Any], name: str) -> tuple[str, ...]:
    names = document.get(name, [])
    if not isinstance(names, list) or not all(isinstance(each, str) for each in names):
        raise _refused(f"`{name}` must be a list of names")
    return tuple(names)


CONTROLS: Final[dict[tuple[str, str], tuple[str, Endpoint]]] = {
    ("GET", "/emulator/truth"): ("control", tell_truth),
    ("GET", "/emulator/actions/{channel}"): ("control", list_everything),
    ("POST", "/emulator/faults"): ("control", set_faults),
    ("POST", "/emulator/access"): ("control", set_access),
    ("POST", "/emulator/outage"): ("control", set_outage),
    ("POST", "/emulator/inject"): ("control", inject),
}
