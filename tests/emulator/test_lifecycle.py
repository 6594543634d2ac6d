"""Start and stop of the emulator, its count of requests, and its control."""

import asyncio
import socket
from collections.abc import Callable

import aiohttp
import pytest

from tests.emulator.clients import KEY, MESSAGE, Http
from tests.waiting import wait_until
from worker.emulator import Emulator, State

ACTIONS = f"/v1/message-actions/{KEY}/channel/room"


async def test_a_port_in_use_is_an_os_error_that_names_it() -> None:
    """The command line shows this message."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1:{port}"):
            await Emulator(port=port).start()


async def test_stopping_ends_every_poll_at_once() -> None:
    """No poll waits for the idle time, and no task remains."""
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


async def test_requests_are_counted_by_operation(emulator: Emulator, http: Http) -> None:
    """Tests of the request budget read the count."""
    await http.poll()
    await http.get(ACTIONS)
    await http.get("/time/0")
    await http.get("/emulator/truth")
    assert emulator.requests == {"subscribe": 1, "actions": 1, "time": 1, "control": 1}


async def test_another_subscribe_key_is_refused_when_one_is_set() -> None:
    """Without one, any key is accepted."""
    async with Emulator(subscribe_key="sub-c-mine") as emulator, aiohttp.ClientSession() as session:
        http = Http(session, emulator.origin)
        refused = await http.poll()
        assert (refused.status, refused.document["message"]) == (400, "Invalid Subscribe Key")
        assert (await http.get("/v1/message-actions/sub-c-mine/channel/room")).status == 200
        assert (await http.get("/time/0")).status == 200


async def test_an_unknown_path_gets_a_404_in_json(http: Http) -> None:
    """A known path with an unknown method gets it, too."""
    for method, path in (("GET", "/v3/history"), ("PUT", ACTIONS), ("GET", "/")):
        got = await http.ask(method, path)
        assert (got.status, got.document["error"]) == (404, True)


async def test_a_request_line_over_32_kib_gets_a_414(http: Http) -> None:
    """A shorter one is answered."""
    assert (await http.poll("c" * 32_000)).status == 200
    assert (await http.poll("c" * 33_000)).status == 414


async def test_the_truth_is_served_over_http(emulator: Emulator, http: Http) -> None:
    """It has the counts without zeros, the events, the stored actions and the positions."""
    emulator.state.add("room", MESSAGE, "t", "v", "ana")
    gone = emulator.state.add("hall", MESSAGE, "t", "v", "ana").actions[0]
    emulator.state.add("room", MESSAGE, "t", "v", "ben", published=False)
    emulator.state.remove("hall", MESSAGE, gone.timetoken, "ana")

    truth = {"room": {MESSAGE: {"t": {"v": 2}}}}
    assert emulator.truth() == truth
    assert (await http.get("/emulator/truth")).document == {
        "channels": truth,
        "events": 3,
        "actions": 2,
        "positions": {
            channel: (await http.poll(channel)).document["t"]["t"] for channel in ("room", "hall")
        },
    }


async def test_anything_can_be_injected_into_an_answer(emulator: Emulator, http: Http) -> None:
    """Objects, other JSON, and text that no encoder writes come verbatim."""
    cursor = (await http.poll("room,a.*")).cursor
    for message in ({"c": "room", "odd": 1}, 7, None):
        emulator.state.inject("room", message)
    emulator.state.inject("room", raw='{"d":"\\ud83d"}')
    emulator.state.inject("a.b", ["verbatim"])

    got = await http.poll("room,a.*", cursor)

    assert got.document["m"] == [{"c": "room", "odd": 1}, 7, None, {"d": "\ud83d"}, ["verbatim"]]
    assert '"\\ud83d"' in got.text


@pytest.mark.parametrize(
    ("order", "problem"),
    [
        (lambda state: state.faults.replace({"typo": 0.1}), "the known ones are ahead, bad_json"),
        (lambda state: state.faults.replace({"late": 2}), "a number from 0 to 1, not 2"),
        (lambda state: state.faults.replace({"late": "often"}), "must be a number"),
        (lambda state: state.set_outage("flood"), "the known ones are html"),
        (lambda state: state.set_outage("drop", ["dance"]), "unknown outage: dance"),
        (lambda state: state.inject("room", raw="{"), "Expecting property name"),
        (lambda state: state.advance(-1), "time does not go back"),
    ],
)
def test_a_wrong_order_is_refused_with_its_reason(
    order: Callable[[State], None], problem: str
) -> None:
    """The message names the valid values."""
    with pytest.raises(ValueError, match=problem):
        order(Emulator().state)


async def test_a_published_text_that_is_not_json_is_refused(http: Http) -> None:
    """The refusal is a list that begins with 0, as PubNub's."""
    got = await http.get(f"/publish/pub/{KEY}/0/room/0/oops")
    assert (got.status, got.document[:2]) == (400, [0, "Invalid JSON"])
