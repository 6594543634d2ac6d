"""Faults of whole requests, outages and refusals, over HTTP."""

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
    """Tell whether a body is a page for people."""
    return got.headers["Content-Type"].startswith("text/html") and got.text.startswith("<html>")


async def strike(http: Http, **faults: float) -> None:
    """Replace the faults, as the demo does."""
    assert (await http.ask("POST", "/emulator/faults", faults)).document == {"faults": faults}


@pytest.mark.parametrize("operation", STRUCK)
async def test_every_request_fault_does_what_its_name_says(http: Http, operation: str) -> None:
    """On subscribe, on the list of actions, and on time; and stops when it is told to."""
    path = STRUCK[operation]
    await strike(http, throttle=1.0)
    got = await http.get(path)
    assert got.status == 429
    assert int(got.headers["Retry-After"]) > 0
    await strike(http, server_error=1.0)
    got = await http.get(path)
    assert got.status in {500, 502, 503}
    assert is_html(got)
    await strike(http, bad_json=1.0)
    got = await http.get(path)
    assert got.status == 200
    with pytest.raises(ValueError, match="Unterminated string"):
        _ = got.document
    await strike(http, drop=1.0)
    with pytest.raises(aiohttp.ServerDisconnectedError):
        await http.get(path)
    await strike(http)
    assert (await http.get(path)).status == 200


async def test_a_forbidden_poll_names_one_of_its_names(emulator: Emulator, http: Http) -> None:
    """In the Access Manager's words: a channel, or a group after a colon."""
    await strike(http, forbidden=1.0)
    named = set()
    for _ in range(30):
        got = await http.poll("a,b", "tt=0&channel-group=g")
        assert (got.status, got.document["message"], got.document["service"]) == (
            403,
            "Forbidden",
            "Access Manager",
        )
        named |= {name for names in got.document["payload"].values() for name in names}
    assert named == {"a", "b", ":g"}


async def test_a_forbidden_list_comes_in_either_shape(http: Http) -> None:
    """As the actions service says it, or as the Access Manager does."""
    await strike(http, forbidden=1.0)
    errors = [(await http.get(ACTIONS)).document["error"] for _ in range(20)]
    assert True in errors
    assert {"source": "actions", "message": "Forbidden"} in errors


async def test_writers_are_spared_all_but_latency(emulator: Emulator, http: Http) -> None:
    """A crowd need not retry."""
    await strike(
        http, forbidden=1.0, throttle=1.0, server_error=1.0, bad_json=1.0, drop=1.0, latency=1.0
    )
    added = await http.ask(
        "POST", f"{ACTIONS}/message/{MESSAGE}?uuid=u", {"type": "t", "value": "v"}
    )
    timetoken = added.document["data"]["actionTimetoken"]
    removed = await http.ask("DELETE", f"{ACTIONS}/message/{MESSAGE}/action/{timetoken}?uuid=u")
    assert (added.status, removed.status) == (200, 200)
    assert emulator.state.faults.struck == {"latency": 2}


async def test_an_unpublished_change_is_answered_207(http: Http) -> None:
    """Both ways, with the data and a warning."""
    await strike(http, unpublished=1.0)
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


async def test_more_is_said_in_the_documented_shape(emulator: Emulator, http: Http) -> None:
    """Where to go on, what was asked, and an address nobody should use."""
    tokens = [
        emulator.state.add("room", MESSAGE, "t", "v", f"u{n}").actions[0].timetoken
        for n in range(9)
    ]
    await strike(http, more=1.0)
    got = (await http.get(f"{ACTIONS}?end={tokens[0]}&limit=8")).document
    more = got["more"]
    assert more.pop("url").startswith("/v1/actions/")
    assert more == {"start": got["data"][0]["actionTimetoken"], "end": str(tokens[0]), "limit": 8}
    assert "end" not in (await http.get(ACTIONS)).document["more"]


@pytest.mark.parametrize("kind", OUTAGE_KINDS)
async def test_an_outage_lasts_until_it_is_lifted(
    emulator: Emulator, http: Http, kind: str
) -> None:
    """It strikes what it is told to, and nothing else."""
    statuses = {"html": 200, "empty_object": 200, "list": 200, "server_error": 503, "throttle": 429}
    assert (
        await http.ask("POST", "/emulator/outage", {"kind": kind, "operations": ["actions"]})
    ).status == 200
    for _ in range(2):
        if kind == "drop":
            with pytest.raises(aiohttp.ServerDisconnectedError):
                await http.get(ACTIONS)
        else:
            got = await http.get(ACTIONS)
            assert (got.status, is_html(got)) == (statuses[kind], kind in {"html", "server_error"})
        assert (await http.poll()).status == 200
    await http.ask("POST", "/emulator/outage", {"kind": None})
    assert (await http.get(ACTIONS)).document == {"status": 200, "data": []}


async def test_an_outage_strikes_all_reading_by_default(http: Http) -> None:
    """Subscribe, lists, time and groups."""
    await http.ask("POST", "/emulator/outage", {"kind": "list"})
    for path in (*STRUCK.values(), GROUP):
        assert (await http.get(path)).document == [1, 2]


async def test_refused_names_are_named(emulator: Emulator, http: Http) -> None:
    """The whole poll is refused, the payload names only the offenders; the rest works without them."""
    order = {"refuse_channels": ["secret"], "refuse_groups": ["staff"]}
    assert (await http.ask("POST", "/emulator/access", order)).status == 200
    got = await http.poll("room,secret", "tt=0&channel-group=fans,staff")
    payload = {"channels": ["secret"], "channel-groups": [":staff"]}
    error = {
        "message": "Forbidden",
        "payload": payload,
        "error": True,
        "service": "Access Manager",
        "status": 403,
    }
    assert (got.status, got.document) == (403, error)
    assert (await http.get(ACTIONS.replace("room", "secret"))).status == 403
    assert (await http.get(GROUP.replace("fans", "staff"))).status == 403
    assert (await http.poll("room", "tt=0&channel-group=fans")).status == 200
    await http.ask("POST", "/emulator/access", {})
    assert (await http.poll("secret")).status == 200


async def test_running_polls_notice_refusals_and_outages(
    patient: Emulator, patient_http: Http
) -> None:
    """They need not wait for an event first."""
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
    """Though nothing else happens."""
    patient.state.faults.replace({"late": 1.0})
    polling = asyncio.create_task(patient_http.poll(query=(await patient_http.poll()).cursor))
    await wait_until(lambda: patient.waiting == 1)
    patient.state.publish("room", "late", "ana")
    assert (await polling).texts == ["late"]


async def test_a_token_that_has_expired_gets_403_where_a_name_is_asked_for(
    patient: Emulator, patient_http: Http
) -> None:
    """Whoever polls with it is told, too; the clock is anybody's."""
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
