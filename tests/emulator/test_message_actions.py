"""Message actions over HTTP, one claim a row."""

from dataclasses import dataclass
from typing import Any

import pytest

from tests.emulator.clients import KEY, MESSAGE, Http, keyset
from worker.emulator import Emulator, RefusedError

ROOM = f"/v1/message-actions/{KEY}/channel/room"
ADD = f"{ROOM}/message/{MESSAGE}?uuid=u0"
REACTION = {"type": "reaction", "value": "v0"}


@dataclass(frozen=True, slots=True)
class Claim:
    """PubNub's answer to one request, in a room with six actions.

    ``{0}`` to ``{5}`` in the request are their timetokens. ``answer`` is a
    status, a document with its status, or the numbers of a page's actions.
    """

    promise: str
    request: str
    answer: int | dict[str, Any] | tuple[int, ...]
    body: object = None


def refused(status: int, message: str, **more: object) -> dict[str, Any]:
    """Return an error document of the actions service."""
    return {"status": status, "error": {"source": "actions", "message": message, **more}}


def invalid(problem: str, *locations: str, within: str = "body") -> dict[str, Any]:
    """Return the document of a 400."""
    details = [{"message": problem, "location": name, "locationType": within} for name in locations]
    return refused(400, "Request payload contained invalid input.", details=details)


NO_MESSAGE = invalid("Not a number", "message", within="path")
LONG_USER = invalid("Too long", "uuid", within="query")
"""The status is PubNub's; its words for this are unknown."""
NO_USER = invalid("Missing field", "uuid", within="query")
NO_NUMBER = invalid("Not a number", "action", within="path")
NO_LIMIT = invalid("Not a number", "limit", within="query")
NO_START = invalid("Not a number", "start", within="query")
ZERO = invalid("Not above zero", "limit", within="query")
CONFLICT = refused(409, "Action Already Added")
NOT_HERE = refused(400, "No matching message actions to delete")
NOT_YOURS = refused(400, "Not deleting message action: wrong uuid specified")
LIST = f"GET {ROOM}"
POST = f"POST {ROOM}/message"
DELETE = f"DELETE {ROOM}/message"
NEW = {"type": "reaction", "value": "new"}
CLAIMS = [
    Claim("an unknown channel is empty", f"GET /v1/message-actions/{KEY}/channel/other", ()),
    Claim("the whole channel ascends", LIST, (0, 1, 2, 3, 4, 5)),
    Claim("start is the newer bound, exclusive", f"{LIST}?start={{3}}", (0, 1, 2)),
    Claim("end is the older bound, inclusive", f"{LIST}?end={{3}}", (3, 4, 5)),
    Claim("both bounds hold together", f"{LIST}?start={{4}}&end={{1}}", (1, 2, 3)),
    Claim("a limit keeps the newest, without more", f"{LIST}?limit=2", (4, 5)),
    Claim("a limit keeps the newest below start", f"{LIST}?start={{4}}&limit=2", (2, 3)),
    Claim("a limit keeps the newest above end", f"{LIST}?end={{1}}&limit=2", (4, 5)),
    Claim("bounds and limit hold together", f"{LIST}?start={{5}}&end={{1}}&limit=2", (3, 4)),
    Claim("nothing lies below the oldest", f"{LIST}?start={{0}}", ()),
    Claim("nothing lies between crossed bounds", f"{LIST}?start={{1}}&end={{4}}", ()),
    Claim("a limit beyond the maximum is the maximum", f"{LIST}?limit=1000", (0, 1, 2, 3, 4, 5)),
    Claim("a limit is a number", f"{LIST}?limit=x", NO_LIMIT),
    Claim("a limit is above zero", f"{LIST}?limit=0", ZERO),
    Claim("a start is a number", f"{LIST}?start=-1", NO_START),
    Claim("an addition is answered", f"POST {ADD}", 200, NEW),
    Claim("another user may add the same", f"{POST}/{MESSAGE}?uuid=other", 200, REACTION),
    Claim("another message may have the same", f"{POST}/1760000000?uuid=u0", 200, REACTION),
    Claim("an addition twice conflicts", f"POST {ADD}", CONFLICT, REACTION),
    Claim("a value is required", f"POST {ADD}", invalid("Missing field", "value"), {"type": "t"}),
    Claim("a type is required", f"POST {ADD}", invalid("Missing field", "type"), {"value": "v"}),
    Claim("an addition is an object", f"POST {ADD}", invalid("Missing field", "type", "value"), []),
    Claim("an addition is JSON", f"POST {ADD}", invalid("Invalid JSON", "body"), b"{"),
    Claim("an addition has a user", f"{POST}/{MESSAGE}", NO_USER, REACTION),
    # PubNub's page said 64 characters for years. Today it says 92, as its other pages do.
    Claim("a user has 64 characters", f"{POST}/{MESSAGE}?uuid={64 * 'u'}", 200, REACTION),
    Claim("a user has no more", f"{POST}/{MESSAGE}?uuid={65 * 'u'}", LONG_USER, REACTION),
    Claim("they are no bytes", f"{POST}/{MESSAGE}?uuid={64 * '%C3%A9'}", 200, REACTION),
    Claim("a message is a number", f"{POST}/x1?uuid=u0", NO_MESSAGE, REACTION),
    Claim("a message has a sign never", f"{POST}/-1?uuid=u0", NO_MESSAGE, REACTION),
    Claim(
        "a removal is answered",
        f"{DELETE}/{MESSAGE}/action/{{0}}?uuid=u0",
        {"status": 200, "data": {}},
    ),
    Claim("only the user removes an action", f"{DELETE}/{MESSAGE}/action/{{0}}?uuid=u1", NOT_YOURS),
    Claim("an unknown action stays unknown", f"{DELETE}/{MESSAGE}/action/1?uuid=u0", NOT_HERE),
    Claim("an action belongs to its message", f"{DELETE}/1/action/{{0}}?uuid=u0", NOT_HERE),
    Claim("a timetoken is a number", f"{DELETE}/{MESSAGE}/action/x?uuid=u0", NO_NUMBER),
    Claim("a removal has a user", f"{DELETE}/{MESSAGE}/action/{{0}}", NO_USER),
]


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.promise)
async def test_pubnub_answers_as_claimed(emulator: Emulator, http: Http, claim: Claim) -> None:
    """The status and, if the claim has one, the whole document are equal."""
    actions = [
        emulator.state.add("room", MESSAGE, "reaction", f"v{n}", f"u{n}").actions[0]
        for n in range(6)
    ]
    method, path = claim.request.split(" ")

    got = await http.ask(method, path.format(*(action.timetoken for action in actions)), claim.body)

    if isinstance(claim.answer, int):
        assert got.status == claim.answer
    elif isinstance(claim.answer, dict):
        assert (got.status, got.document) == (claim.answer["status"], claim.answer)
    else:
        shown = [
            {"type": "reaction", "value": f"v{n}", "uuid": f"u{n}"}
            | {"actionTimetoken": str(actions[n].timetoken), "messageTimetoken": MESSAGE}
            for n in claim.answer
        ]
        assert (got.status, got.document) == (200, {"status": 200, "data": shown})


async def test_an_addition_is_answered_with_the_whole_action(http: Http) -> None:
    """The timetoken is even and has 17 digits. The rest is as it was sent."""
    got = await http.ask(
        "POST", f"{ROOM}/message/1234567890?uuid=ana", {"type": "t:%", "value": "\ud83d 👍"}
    )

    data = got.document["data"]
    timetoken = data.pop("actionTimetoken")
    assert data == {
        "type": "t:%",
        "value": "\ud83d 👍",
        "messageTimetoken": "1234567890",
        "uuid": "ana",
    }
    assert (len(timetoken), int(timetoken) % 2) == (17, 0)


async def test_a_number_as_value_gets_a_500_in_html(http: Http) -> None:
    """PubNub's server fails on it."""
    got = await http.ask("POST", ADD, {"type": "t", "value": 7})
    assert (got.status, got.text[:6], got.headers["Content-Type"][:9]) == (
        500,
        "<html>",
        "text/html",
    )


async def test_a_page_has_a_hundred_items_at_most(emulator: Emulator, http: Http) -> None:
    """Pages from the oldest action of the page before show everything once."""
    for n in range(250):
        emulator.state.add("room", MESSAGE, "t", "v", f"u{n}", published=False)
    pages, start = [], ""
    while page := (await http.get(f"{ROOM}{start}")).document["data"]:
        pages.append([action["uuid"] for action in page])
        start = f"?start={page[0]['actionTimetoken']}"

    assert [len(page) for page in pages] == [100, 100, 50]
    assert [uuid for page in reversed(pages) for uuid in page] == [f"u{n}" for n in range(250)]


async def test_an_action_added_again_gets_a_larger_timetoken(emulator: Emulator) -> None:
    """Without the fault ``readd``, that is."""
    state = emulator.state
    first = state.add("room", MESSAGE, "t", "v", "u").actions[0]
    state.remove("room", MESSAGE, first.timetoken, "u")
    assert state.add("room", MESSAGE, "t", "v", "u").actions[0].timetoken > first.timetoken


def test_a_message_takes_25000_actions() -> None:
    """Not one more, until one is removed. Another message still takes some.

    What PubNub answers to the next one is unknown: here it is a 400 with words of our own.
    """
    state, _ = keyset()
    for number in range(25_000):
        change = state.add("room", MESSAGE, "t", "v", f"u{number}", published=False)
    with pytest.raises(RefusedError, match=r"^400: .*Too many actions"):
        state.add("room", MESSAGE, "t", "v", "late")
    assert state.add("room", "1", "t", "v", "late").published

    (last,) = change.actions
    state.remove("room", MESSAGE, last.timetoken, last.identity.uuid)
    assert state.add("room", MESSAGE, "t", "v", "late").published


async def test_an_old_history_can_be_stored(emulator: Emulator, http: Http) -> None:
    """Its timetokens can come in any order. Subscribers get no event."""
    cursor = (await http.poll()).cursor
    for at in (17_000_000_000_000_300, 17_000_000_000_000_100, 17_000_000_000_000_200):
        emulator.state.add("room", MESSAGE, "t", "v", f"u{at}", published=False, at=at)
    listed = (await http.get(ROOM)).document["data"]
    assert [action["actionTimetoken"][-3:] for action in listed] == ["100", "200", "300"]
    assert (await http.poll(query=cursor)).texts == []
