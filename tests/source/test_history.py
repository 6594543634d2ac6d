"""Paging backwards: everything that is listed comes, whatever the pages are like."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing

import pytest

from tests.source.scripted import SUBSCRIBE_KEY, ScriptedPubNub, json_reply, wait_until
from worker.emulator import Emulator
from worker.errors import PubNubError
from worker.source.backoff import elapsed_clock
from worker.source.client import Client, Keyset
from worker.source.history import EMPTY_RETRIES, PAGE_SIZE, TRIES, History, ListSlice, ahead, span
from worker.source.wire import action_timetoken

NOW = "17700000000000000"
FIRST = 17600000000000000


@pytest.fixture
async def emulator() -> AsyncIterator[Emulator]:
    """A PubNub with a past."""
    async with Emulator(seed=3) as emulator:
        yield emulator


def seed(emulator: Emulator, count: int, *, apart: int = 2) -> set[str]:
    """Store actions that are some ticks apart; return their users."""
    users = {f"user{number}" for number in range(count)}
    for number in range(count):
        emulator.state.add(
            "room",
            "1",
            "reaction",
            "👍",
            f"user{number}",
            published=False,
            at=FIRST + number * apart,
        )
    return users


async def read(origin: str, end: str | None = None) -> list[ListSlice]:
    """Return all slices of the room."""

    async def at_once() -> None: ...

    async with Client(Keyset(SUBSCRIBE_KEY, "tally", origin=origin, tls=False)) as client:
        return [
            slice
            async for slice in History(client, at_once, elapsed_clock).slices("room", NOW, end)
        ]


def users_in(slices: list[ListSlice]) -> set[str]:
    """Return whose actions the slices told."""
    return {
        str(action["uuid"])
        for slice in slices
        for action in slice.actions
        if isinstance(action, dict)
    }


@pytest.mark.parametrize("count", [0, 1, 99, 100, 101, 250])
async def test_every_action_is_read(emulator: Emulator, count: int) -> None:
    """Newest first, to the first; a full page is no end, and neither is a short one."""
    users = seed(emulator, count)

    slices = await read(emulator.origin)

    assert users_in(slices) == users
    assert all(slice.is_certain for slice in slices)
    places = [int(slice.next) for slice in slices]
    assert places == sorted(places, reverse=True)
    # Besides the pages themselves: one for the overlap with the last, and the empty one that is the end.
    assert emulator.requests["actions"] <= count // (PAGE_SIZE - 1) + 3


async def test_ties_at_a_pages_edge_are_read(emulator: Emulator) -> None:
    """Seven actions share each timetoken; ``start`` is exclusive, so pages overlap."""
    users = seed(emulator, 350, apart=0)
    emulator.state.time.unique()
    tied = {f"tied{number}" for number in range(300)}
    for number in range(300):
        emulator.state.add(
            "room",
            "1",
            "reaction",
            "👍",
            f"tied{number}",
            published=False,
            at=FIRST + 1000 + number // 7 * 2,
        )

    slices = await read(emulator.origin)

    assert tied <= users_in(slices)
    # 350 share one timetoken: more than a page can hold, so nobody can read them all, and that is said.
    assert not users <= users_in(slices)
    assert [slice.is_certain for slice in slices if slice.next == str(FIRST)] == [False]


async def test_a_page_cut_short_by_the_server_goes_on(emulator: Emulator) -> None:
    """``more`` names where."""
    users = seed(emulator, 320)
    emulator.state.faults.replace({"more": 0.7})

    slices = await read(emulator.origin)

    assert users_in(slices) == users
    assert emulator.state.faults.struck["more"] > 3


async def test_reading_ends_at_the_older_bound(emulator: Emulator) -> None:
    """``end`` is inclusive."""
    seed(emulator, 300)

    slices = await read(emulator.origin, end=str(FIRST + 2 * 290))

    assert users_in(slices) == {f"user{number}" for number in range(290, 300)}
    # The overlap with the only page ends at the bound: no need to ask for what lies below it.
    assert emulator.requests["actions"] == 2


async def test_an_empty_page_with_more_is_no_end() -> None:
    """Only an empty page without ``more`` is."""
    async with ScriptedPubNub() as server:
        server.script(
            json_reply(
                {"status": 200, "data": [], "more": {"start": str(FIRST), "url": "/", "limit": 100}}
            ),
            *[json_reply({"status": 200, "data": [listed(FIRST - 10)]})] * 2,
            json_reply({"status": 200, "data": []}),
        )

        slices = await read(server.origin)

        assert [len(slice.actions) for slice in slices] == [0, 1, 1]
        starts = [NOW, str(FIRST + 1), str(FIRST - 9), str(FIRST - 10)]
        assert [asked.parameters["start"] for asked in server.requests] == starts


async def test_an_empty_page_where_something_must_be_is_asked_for_again() -> None:
    """The page before has just shown what this one begins with; if it stays empty, what lies below is uncertain."""
    async with ScriptedPubNub() as server:
        empty = json_reply({"status": 200, "data": []})
        server.script(
            json_reply({"status": 200, "data": [listed(FIRST)]}), *[empty] * EMPTY_RETRIES
        )

        slices = await read(server.origin)

        assert [(len(slice.actions), slice.is_certain) for slice in slices] == [
            (1, True),
            (0, False),
        ]
        assert [asked.parameters["start"] for asked in server.requests] == [
            NOW,
            *[str(FIRST + 1)] * EMPTY_RETRIES,
        ]


async def test_a_page_that_does_not_advance_is_stepped_over() -> None:
    """Asked again, three times in all, then its edge is uncertain and reading goes on below it."""
    full = json_reply({"status": 200, "data": [listed(FIRST)] * PAGE_SIZE})
    async with ScriptedPubNub() as server:
        server.script(full, *[full] * TRIES, json_reply({"status": 200, "data": []}))

        slices = await read(server.origin)

        assert [slice.is_certain for slice in slices] == [True, False]
        assert [slice.next for slice in slices] == [str(FIRST + 1), str(FIRST)]
        assert len(server.requests) == 1 + TRIES + 1


async def test_a_list_that_repeats_itself_is_an_error() -> None:
    """An origin that always answers the same must not be read for ever."""
    async with ScriptedPubNub() as server:
        server.script(
            json_reply(
                {"status": 200, "data": [listed(FIRST + number) for number in range(PAGE_SIZE)]}
            )
        )

        with pytest.raises(PubNubError, match="repeats itself"):
            await read(server.origin)

        assert len(server.requests) == 1 + TRIES * TRIES


async def test_items_that_cannot_be_read_do_not_stop_paging() -> None:
    """They come along, to be quarantined; the others say where to go on."""
    odd = [None, {"actionTimetoken": True}, listed(FIRST)]
    async with ScriptedPubNub() as server:
        rest = json_reply({"status": 200, "data": [listed(FIRST)]})
        server.script(
            json_reply({"status": 200, "data": odd}), rest, json_reply({"status": 200, "data": []})
        )

        slice, _ = await read(server.origin)

        assert slice.actions == tuple(odd)
        assert slice.next == str(FIRST + 1)


async def test_a_page_nobody_can_read_is_the_end() -> None:
    """Its items come along, to be quarantined; where to go on, they do not say."""
    async with ScriptedPubNub() as server:
        server.script(json_reply({"status": 200, "data": [None, {"actionTimetoken": "soon"}]}))

        [slice] = await read(server.origin)

        assert (len(slice.actions), slice.is_certain) == (2, False)


def listed(timetoken: int) -> dict[str, str]:
    """Return an item of a list."""
    action = {
        "type": "reaction",
        "value": "👍",
        "uuid": "ana",
        "actionTimetoken": str(timetoken),
        "messageTimetoken": "1",
    }
    assert action_timetoken(action) == str(timetoken)
    return action


async def slow_slices(begun: list[int], ended: list[str]) -> AsyncGenerator[ListSlice, None]:
    """Yield three slices, each a while later; then fail."""
    try:
        for number in range(3):
            begun.append(number)
            await asyncio.sleep(0.001)
            yield ListSlice((number,), None, str(FIRST - number), 0)
        begun.append(3)
        raise PubNubError("enough")
    finally:
        ended.append("closed")


async def test_the_next_page_is_asked_for_while_one_is_dealt_with() -> None:
    """One, not more; and a failure comes in its turn, when the pages before it are dealt with."""
    begun, ended, dealt = list[int](), list[str](), list[object]()

    async def read_all() -> None:
        async for slice in ahead(slow_slices(begun, ended)):
            dealt.extend(slice.actions)
            await wait_until(lambda: len(begun) > len(dealt))
            assert len(begun) == len(dealt) + 1

    with pytest.raises(PubNubError, match="enough"):
        await read_all()

    assert (dealt, ended) == ([0, 1, 2], ["closed"])


@pytest.mark.parametrize("dealt_with", [1, 3])
async def test_whoever_stops_reading_leaves_no_request_behind(dealt_with: int) -> None:
    """Not one under way, nor one that has failed already."""
    begun, ended = list[int](), list[str]()
    before = asyncio.all_tasks()

    async with aclosing(ahead(slow_slices(begun, ended))) as slices:
        for _ in range(dealt_with):
            await anext(slices)
        await wait_until(lambda: len(begun) > dealt_with)

    assert ended == ["closed"]
    assert asyncio.all_tasks() == before


async def test_whoever_is_cancelled_while_waiting_leaves_no_request_behind() -> None:
    """The one it waited for ends with it."""
    begun, ended = list[int](), list[str]()

    async def read_all() -> None:
        async with aclosing(ahead(slow_slices(begun, ended))) as slices:
            async for _ in slices:
                pass

    before = asyncio.all_tasks()
    reading = asyncio.create_task(read_all())
    await wait_until(lambda: bool(begun))
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)

    assert ended == ["closed"]
    assert asyncio.all_tasks() == before


@pytest.mark.parametrize(
    ("timetokens", "expected"),
    [
        (["12", "11", "13"], ("11", "13")),
        (["9", "10", "8"], ("8", "10")),
        (["10", "no digits", None], ("10", "10")),
        (["no digits"], None),
        ([], None),
    ],
)
def test_a_page_spans_from_its_oldest_to_its_newest(
    timetokens: list[object], expected: object
) -> None:
    """In whatever order it lists them; digits are counted before they are compared."""
    assert span([{"actionTimetoken": at} for at in timetokens]) == expected
