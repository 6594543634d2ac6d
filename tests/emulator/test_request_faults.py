"""Request faults, outages and refusals, over HTTP."""

import asyncio

import aiohttp
import pytest

from tests.emulator.clients import KEY, MESSAGE, Got, Http
from tests.waiting import wait_until
from worker.emulator import OUTAGE_KINDS, Emulator

ACTIONS = f"/v1/message-actions/{KEY}/channel/room"
GROUP = f"/v1/channel-registration/sub-key/{KEY}/channel-group/fans"
STRUCK = {"subscribe": f"/v2/subscribe/{KEY}/room/0?tt=0", "actions": ACTIONS, "time": "/time/0"}


def is_html(got: Got) -> bool:
    """Tell whether a body is an HTML page."""
    return got.headers["Content-Type"].startswith("text/html") and got.text.startswith("<html>")


@pytest.mark.parametrize("operation", STRUCK)
async def test_a_request_fault_strikes_every_read(
    emulator: Emulator, http: Http, operation: str
) -> None:
    """Each fault has its own answer. Without faults, the answer is a 200."""
    path = STRUCK[operation]
    strike = emulator.state.faults.replace
    strike({"throttle": 1.0})
    got = await http.get(path)
    assert got.status == 429
    assert int(got.headers["Retry-After"]) > 0
    strike({"server_error": 1.0})
    got = await http.get(path)
    assert got.status in {500, 502, 503}
    assert is_html(got)
    strike({"bad_json": 1.0})
    got = await http.get(path)
    assert got.status == 200
    with pytest.raises(ValueError, match="Unterminated string"):
        _ = got.document
    strike({"drop": 1.0})
    with pytest.raises(aiohttp.ServerDisconnectedError):
        await http.get(path)
    strike({})
    assert (await http.get(path)).status == 200


async def test_a_forbidden_poll_names_one_of_its_names(emulator: Emulator, http: Http) -> None:
    """The name is a channel, or a group after a colon."""
    emulator.state.faults.replace({"forbidden": 1.0})
    named = set()
    for _ in range(30):
        got = await http.poll("a,b", "tt=0&channel-group=g")
        assert (got.status, got.document["message"]) == (403, "Forbidden")
        named |= {name for names in got.document["payload"].values() for name in names}
    assert named == {"a", "b", ":g"}


async def test_a_forbidden_list_has_one_of_two_shapes(emulator: Emulator, http: Http) -> None:
    """One is of the actions service, the other of the Access Manager."""
    emulator.state.faults.replace({"forbidden": 1.0})
    errors = [(await http.get(ACTIONS)).document["error"] for _ in range(20)]
    assert True in errors
    assert {"source": "actions", "message": "Forbidden"} in errors


async def test_writers_are_spared_all_but_latency(emulator: Emulator, http: Http) -> None:
    """Users who react need not retry."""
    names = ("forbidden", "throttle", "server_error", "bad_json", "drop", "latency")
    emulator.state.faults.replace(dict.fromkeys(names, 1.0))
    added = await http.ask(
        "POST", f"{ACTIONS}/message/{MESSAGE}?uuid=u", {"type": "t", "value": "v"}
    )
    timetoken = added.document["data"]["actionTimetoken"]
    removed = await http.ask("DELETE", f"{ACTIONS}/message/{MESSAGE}/action/{timetoken}?uuid=u")
    assert (added.status, removed.status) == (200, 200)
    assert emulator.state.faults.struck == {"latency": 2}


async def test_an_unpublished_change_is_answered_207(emulator: Emulator, http: Http) -> None:
    """The answer has the data and a warning."""
    emulator.state.faults.replace({"unpublished": 1.0})
    added = await http.ask(
        "POST", f"{ACTIONS}/message/{MESSAGE}?uuid=u", {"type": "t", "value": "v"}
    )
    data = added.document["data"]
    warning = {"source": "actions", "message": "Stored but failed to publish message action."}
    assert (added.status, added.document["status"], added.document["error"]) == (207, 207, warning)
    removed = await http.ask(
        "DELETE", f"{ACTIONS}/message/{MESSAGE}/action/{data['actionTimetoken']}?uuid=u"
    )
    assert (removed.status, removed.document["data"], removed.document["error"]["source"]) == (
        207,
        {},
        "actions",
    )


async def test_more_has_the_documented_shape(emulator: Emulator, http: Http) -> None:
    """It has the next start, the request's bounds, and an address."""
    tokens = [
        emulator.state.add("room", MESSAGE, "t", "v", f"u{n}").actions[0].timetoken
        for n in range(9)
    ]
    emulator.state.faults.replace({"more": 1.0})
    got = (await http.get(f"{ACTIONS}?end={tokens[0]}&limit=8")).document
    more = got["more"]
    assert more.pop("url").startswith("/v1/actions/")
    assert more == {"start": got["data"][0]["actionTimetoken"], "end": str(tokens[0]), "limit": 8}
    assert "end" not in (await http.get(ACTIONS)).document["more"]


@pytest.mark.parametrize("kind", OUTAGE_KINDS)
async def test_an_outage_lasts_until_it_is_ended(emulator: Emulator, http: Http, kind: str) -> None:
    """Only its own operations fail."""
    statuses = {"html": 200, "empty_object": 200, "list": 200, "server_error": 503, "throttle": 429}
    emulator.state.set_outage(kind, ["actions"])
    for _ in range(2):
        if kind == "drop":
            with pytest.raises(aiohttp.ServerDisconnectedError):
                await http.get(ACTIONS)
        else:
            got = await http.get(ACTIONS)
            assert (got.status, is_html(got)) == (statuses[kind], kind in {"html", "server_error"})
        assert (await http.poll()).status == 200
    emulator.state.set_outage(None)
    assert (await http.get(ACTIONS)).document == {"status": 200, "data": []}


async def test_an_outage_strikes_every_read_by_default(emulator: Emulator, http: Http) -> None:
    """These are subscribe, lists, time and groups."""
    emulator.state.set_outage("list")
    for path in (*STRUCK.values(), GROUP):
        assert (await http.get(path)).document == [1, 2]


async def test_a_refusal_names_the_refused(emulator: Emulator, http: Http) -> None:
    """The whole poll is refused. Other names still work."""
    emulator.state.refuse(["secret"], ["staff"])
    got = await http.poll("room,secret", "tt=0&channel-group=fans,staff")
    payload = {"channels": ["secret"], "channel-groups": [":staff"]}
    error = {"message": "Forbidden", "error": True, "service": "Access Manager", "status": 403}
    assert (got.status, got.document) == (403, {**error, "payload": payload})
    assert (await http.get(ACTIONS.replace("room", "secret"))).status == 403
    assert (await http.get(GROUP.replace("fans", "staff"))).status == 403
    assert (await http.poll("room", "tt=0&channel-group=fans")).status == 200
    emulator.state.refuse()
    assert (await http.poll("secret")).status == 200


async def test_an_open_poll_ends_with_a_refusal_or_an_outage(
    patient: Emulator, patient_http: Http
) -> None:
    """It does not wait for an event first."""
    for order, status in (("refuse", 403), ("outage", 503)):
        cursor = (await patient_http.poll()).cursor
        polling = asyncio.create_task(patient_http.poll(query=cursor))
        await wait_until(lambda: patient.waiting == 1)
        if order == "refuse":
            patient.state.refuse(channels=["room"])
        else:
            patient.state.set_outage("server_error")
        assert (await polling).status == status
        patient.state.refuse()


async def test_a_late_event_reaches_a_poll_that_waits(
    patient: Emulator, patient_http: Http
) -> None:
    """Nothing else wakes the poll."""
    patient.state.faults.replace({"late": 1.0})
    polling = asyncio.create_task(patient_http.poll(query=(await patient_http.poll()).cursor))
    await wait_until(lambda: patient.waiting == 1)
    patient.state.publish("room", "late", "ana")
    assert (await polling).texts == ["late"]


async def test_an_expired_token_gets_a_403_for_any_name(
    patient: Emulator, patient_http: Http
) -> None:
    """An open poll gets it, too. The time needs no token."""
    http = patient_http
    cursor = (await http.poll()).cursor
    polling = asyncio.create_task(http.poll(query=f"{cursor}&auth=old"))
    await wait_until(lambda: patient.waiting == 1)
    patient.state.demand_token("new")
    for got in (await polling, await http.poll(), await http.get(f"{ACTIONS}?auth=old")):
        assert (got.status, got.document["message"]) == (403, "Token is expired.")
    assert (await http.get(f"{ACTIONS}?auth=new")).status == 200
    assert (await http.poll(query="tt=0&auth=new")).status == 200
    assert (await http.get("/time/0")).status == 200
    patient.state.demand_token(None)
    assert (await http.poll()).status == 200
