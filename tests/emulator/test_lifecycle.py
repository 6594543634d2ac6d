"""Starting, stopping, and the endpoints PubNub has not."""

import asyncio
import socket

import aiohttp
import pytest

from tests.emulator.clients import KEY, MESSAGE, Http
from tests.waiting import wait_until
from worker.emulator import Emulator

ACTIONS = f"/v1/message-actions/{KEY}/channel/room"


async def test_a_port_in_use_is_an_os_error_that_names_it() -> None:
    """The command line can show it as it is."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1:{port}"):
            await Emulator(port=port).start()


async def test_stopping_ends_every_poll_at_once() -> None:
    """Nobody waits for the idle time, and no task is left."""
    before = asyncio.all_tasks()
    async with aiohttp.ClientSession() as session, Emulator(idle_seconds=3600) as emulator:
        http = Http(session, emulator.origin)
        cursor = (await http.poll()).cursor
        polls = [asyncio.create_task(http.poll(f"room{n}", cursor)) for n in range(20)]
        await wait_until(lambda: emulator.waiting == 20)
        await emulator.stop()
        ends = await asyncio.gather(*polls, return_exceptions=True)

    assert all(isinstance(end, aiohttp.ClientError) for end in ends)
    await wait_until(lambda: asyncio.all_tasks() == before)


async def test_an_emulator_starts_again_with_what_it_knew() -> None:
    """Stopping is a network's outage, not a loss."""
    emulator = Emulator(idle_seconds=0.05)
    for _ in range(2):
        async with emulator, aiohttp.ClientSession() as session:
            await Http(session, emulator.origin).ask(
                "POST", f"{ACTIONS}/message/1?uuid=u", {"type": "t", "value": "v"}
            )
    await emulator.stop()
    assert emulator.truth() == {"room": {"1": {"t": {"v": 1}}}}
    with pytest.raises(RuntimeError, match="not running"):
        _ = emulator.origin


async def test_requests_are_counted_by_operation(emulator: Emulator, http: Http) -> None:
    """Tests of a request budget rely on it."""
    await http.poll()
    await http.get(ACTIONS)
    await http.get("/time/0")
    await http.get("/emulator/truth")
    assert emulator.requests == {"subscribe": 1, "actions": 1, "time": 1, "control": 1}


async def test_another_subscribe_key_is_refused_when_one_is_set() -> None:
    """By default any will do."""
    async with Emulator(subscribe_key="sub-c-mine") as emulator, aiohttp.ClientSession() as session:
        http = Http(session, emulator.origin)
        refused = await http.poll()
        assert (refused.status, refused.document["message"]) == (400, "Invalid Subscribe Key")
        assert (await http.get("/v1/message-actions/sub-c-mine/channel/room")).status == 200
        assert (await http.get("/time/0")).status == 200


async def test_unknown_paths_are_not_found_in_json(http: Http) -> None:
    """So are known ones with an unknown method."""
    for method, path in (("GET", "/v3/history"), ("PUT", ACTIONS), ("GET", "/")):
        got = await http.ask(method, path)
        assert (got.status, got.document["error"]) == (404, True)


async def test_a_request_line_has_an_end(http: Http) -> None:
    """Beyond 32 KiB there is no answer but 414."""
    assert (await http.poll("c" * 32_000)).status == 200
    assert (await http.poll("c" * 33_000)).status == 414


async def test_the_truth_is_told_over_http(emulator: Emulator, http: Http) -> None:
    """Counts of users without zeros, events and stored actions; and every action of a channel."""
    kept = emulator.state.add("room", MESSAGE, "t", "v", "ana").actions[0]
    gone = emulator.state.add("hall", MESSAGE, "t", "v", "ana").actions[0]
    emulator.state.add("room", MESSAGE, "t", "v", "ben", published=False)
    emulator.state.remove("hall", MESSAGE, gone.timetoken, "ana")

    truth = {"room": {MESSAGE: {"t": {"v": 2}}}}
    assert emulator.truth() == truth
    assert (await http.get("/emulator/truth")).document == {
        "channels": truth,
        "events": 3,
        "actions": 2,
    }
    listed = (await http.get("/emulator/actions/room")).document["actions"]
    assert [action["uuid"] for action in listed] == ["ana", "ben"]
    assert listed[0]["actionTimetoken"] == str(kept.timetoken)


async def test_anything_can_be_injected_into_an_answer(emulator: Emulator, http: Http) -> None:
    """Objects, things that are none, and text no encoder would write."""
    cursor = (await http.poll("room,a.*")).cursor
    for body in (
        {"message": {"c": "room", "odd": 1}},
        {"message": 7},
        {"raw": '{"d":"\\ud83d"}'},
        {"message": None},
    ):
        assert (
            await http.ask("POST", "/emulator/inject", {"channel": "room", **body})
        ).status == 200
    emulator.state.inject("a.b", ["verbatim"])
    got = await http.poll("room,a.*", cursor)
    assert got.document["m"] == [{"c": "room", "odd": 1}, 7, {"d": "\ud83d"}, None, ["verbatim"]]
    assert '"\\ud83d"' in got.text


@pytest.mark.parametrize(
    ("path", "body", "problem"),
    [
        ("faults", {"typo": 0.1}, "unknown fault 'typo'; the known ones are ahead, bad_json"),
        ("faults", {"late": 2}, "the rate of 'late' must be a number from 0 to 1, not 2"),
        ("faults", {"late": "often"}, "must be a number"),
        ("faults", [], "must be a JSON object"),
        ("faults", b"{", "not JSON"),
        ("access", {"refuse_channels": "room"}, "`refuse_channels` must be a list of names"),
        ("outage", {"kind": "flood"}, "unknown outage 'flood'; the known ones are html"),
        ("outage", {"kind": "drop", "operations": ["dance"]}, "unknown operations dance"),
        ("inject", {"channel": "room"}, "either `message`"),
        ("inject", {"channel": "room", "raw": "{", "message": 1}, "either `message`"),
        ("inject", {"channel": "room", "raw": "{"}, "`raw` is not JSON"),
    ],
)
async def test_wrong_orders_are_refused_in_plain_words(
    http: Http, path: str, body: object, problem: str
) -> None:
    """A 400 whose sentence says what would be right."""
    got = await http.ask("POST", f"/emulator/{path}", body)
    assert got.status == 400
    assert problem in got.document["error"]


def test_wrong_faults_are_refused_in_process_too() -> None:
    """ValueError, naming the known ones."""
    with pytest.raises(ValueError, match="unknown fault 'typo'; the known ones are ahead, "):
        Emulator(faults={"typo": 0.5})
    with pytest.raises(ValueError, match="time does not go back"):
        Emulator().state.advance(-1)


async def test_publishing_what_is_no_json_is_refused(http: Http) -> None:
    """As PubNub does: a list that begins with 0."""
    got = await http.get(f"/publish/pub/{KEY}/0/room/0/oops")
    assert (got.status, got.document[:2]) == (400, [0, "Invalid JSON"])
