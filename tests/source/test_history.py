"""Paging backwards: everything in the list comes, whatever its pages."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from typing import Any

import pytest

from tests.source.scripted import SUBSCRIBE_KEY, Reply, ScriptedPubNub, json_reply
from tests.waiting import wait_until
from worker.emulator import Emulator
from worker.errors import PubNubError
from worker.source.backoff import elapsed_clock
from worker.source.client import Client, Keyset
from worker.source.history import EMPTY_RETRIES, PAGE_SIZE, TRIES, History, ListSlice, ahead, span

NOW = "17700000000000000"
FIRST = 17600000000000000


@pytest.fixture
async def emulator() -> AsyncIterator[Emulator]:
    """Return an emulator."""
    async with Emulator(seed=3) as emulator:
        yield emulator


def seed(emulator: Emulator, times: Sequence[int], name: str = "user") -> set[str]:
    """Store actions some ticks after the first one, and return their users."""
    users = [f"{name}{number}" for number in range(len(times))]
    for user, ticks in zip(users, times, strict=True):
        emulator.state.add("room", "1", "reaction", "👍", user, published=False, at=FIRST + ticks)
    return set(users)


def page(*items: object, **more: object) -> Reply:
    """Return a page of the list."""
    return json_reply({"status": 200, "data": list(items), **more})


async def read(origin: str, end: str | None = None) -> list[ListSlice]:
    """Return all slices of the room."""

    async def at_once() -> None: ...

    async with Client(Keyset(SUBSCRIBE_KEY, "tally", origin=origin, tls=False)) as client:
        return [
            slice
            async for slice in History(client, at_once, elapsed_clock).slices("room", NOW, end)
        ]


def users_in(slices: list[ListSlice]) -> set[str]:
    """Return the users of all actions in the slices."""
    actions: list[Any] = [action for slice in slices for action in slice.actions]
    return {action["uuid"] for action in actions}


@pytest.mark.parametrize("count", [0, 1, 99, 100, 101, 250])
async def test_every_action_is_read(emulator: Emulator, count: int) -> None:
    """Neither a full page nor a short one is the end."""
    users = seed(emulator, range(0, 2 * count, 2))

    slices = await read(emulator.origin)

    assert users_in(slices) == users
    assert all(slice.is_certain for slice in slices)
    places = [int(slice.next) for slice in slices]
    assert places == sorted(places, reverse=True)
    # Two more requests are for the overlap with the last page, and for the end.
    assert emulator.requests["actions"] <= count // (PAGE_SIZE - 1) + 3


async def test_ties_at_a_pages_edge_are_read(emulator: Emulator) -> None:
    """Seven actions share each timetoken, and ``start`` is exclusive."""
    users = seed(emulator, [0] * 350)
    tied = seed(emulator, [1000 + number // 7 * 2 for number in range(300)], "tied")

    slices = await read(emulator.origin)

    assert tied <= users_in(slices)
    # 350 actions with one timetoken do not fit into a page, so some stay unread.
    assert not users <= users_in(slices)
    assert [slice.is_certain for slice in slices if slice.next == str(FIRST)] == [False]


async def test_a_page_cut_short_by_the_server_goes_on(emulator: Emulator) -> None:
    """``more`` has the next start."""
    users = seed(emulator, range(0, 640, 2))
    emulator.state.faults.replace({"more": 0.7})

    slices = await read(emulator.origin)

    assert users_in(slices) == users
    assert emulator.state.faults.struck["more"] > 3


async def test_reading_ends_at_the_older_bound(emulator: Emulator) -> None:
    """``end`` is inclusive."""
    seed(emulator, range(0, 600, 2))

    slices = await read(emulator.origin, end=str(FIRST + 2 * 290))

    assert users_in(slices) == {f"user{number}" for number in range(290, 300)}
    assert emulator.requests["actions"] == 2


async def test_an_empty_page_with_more_is_no_end() -> None:
    """An empty page without ``more`` is."""
    async with ScriptedPubNub() as server:
        older = page(listed(FIRST - 10))
        server.script(page(more={"start": str(FIRST), "url": "/"}), older, older, page())

        slices = await read(server.origin)

        assert [len(slice.actions) for slice in slices] == [0, 1, 1]
        starts = [NOW, str(FIRST + 1), str(FIRST - 9), str(FIRST - 10)]
        assert [asked.parameters["start"] for asked in server.requests] == starts


async def test_an_impossible_empty_page_is_asked_for_again() -> None:
    """It must repeat the page before. If it stays empty, that is uncertain."""
    async with ScriptedPubNub() as server:
        server.script(page(listed(FIRST)), *[page()] * EMPTY_RETRIES)

        slices = await read(server.origin)

        shown = [(len(slice.actions), slice.is_certain) for slice in slices]
        assert shown == [(1, True), (0, False)]
        starts = [asked.parameters["start"] for asked in server.requests]
        assert starts == [NOW, *[str(FIRST + 1)] * EMPTY_RETRIES]


async def test_a_page_that_does_not_advance_is_stepped_over() -> None:
    """It is asked for three times. Then its edge is uncertain."""
    full = page(*[listed(FIRST)] * PAGE_SIZE)
    async with ScriptedPubNub() as server:
        server.script(full, *[full] * TRIES, page())

        slices = await read(server.origin)

        assert [slice.is_certain for slice in slices] == [True, False]
        assert [slice.next for slice in slices] == [str(FIRST + 1), str(FIRST)]
        assert len(server.requests) == 1 + TRIES + 1


async def test_a_list_that_repeats_itself_is_an_error() -> None:
    """It would be read for ever."""
    async with ScriptedPubNub() as server:
        server.script(page(*map(listed, range(FIRST, FIRST + PAGE_SIZE))))

        with pytest.raises(PubNubError, match="repeats itself"):
            await read(server.origin)

        assert len(server.requests) == 1 + TRIES * TRIES


async def test_an_unreadable_item_does_not_stop_paging() -> None:
    """It comes, too, for the quarantine. The others have the next start."""
    odd = [None, {"actionTimetoken": True}, listed(FIRST)]
    async with ScriptedPubNub() as server:
        server.script(page(*odd), page(listed(FIRST)), page())

        slice, _ = await read(server.origin)

        assert slice.actions == tuple(odd)
        assert slice.next == str(FIRST + 1)


async def test_an_unreadable_page_is_the_end() -> None:
    """Its items come for the quarantine, but without a next start."""
    async with ScriptedPubNub() as server:
        server.script(page(None, {"actionTimetoken": "soon"}))

        [slice] = await read(server.origin)

        assert (len(slice.actions), slice.is_certain) == (2, False)


def listed(timetoken: int) -> dict[str, str]:
    """Return an item of a list."""
    facts = {"type": "reaction", "value": "👍", "uuid": "ana", "messageTimetoken": "1"}
    return {**facts, "actionTimetoken": str(timetoken)}


async def slow_slices(begun: list[int], ended: list[str]) -> AsyncGenerator[ListSlice, None]:
    """Yield three slices, each a while later, and fail."""
    try:
        for number in range(3):
            begun.append(number)
            await asyncio.sleep(0.001)
            yield ListSlice((number,), None, str(FIRST - number), 0, 0)
        begun.append(3)
        raise PubNubError("enough")
    finally:
        ended.append("closed")


async def test_one_page_is_asked_for_ahead() -> None:
    """A failure is raised after the pages before it."""
    begun, ended, dealt = list[int](), list[str](), list[object]()

    async def read_all() -> None:
        async for slice in ahead(slow_slices(begun, ended)):
            dealt.extend(slice.actions)
            await wait_until(lambda: len(begun) > len(dealt))
            assert len(begun) == len(dealt) + 1

    with pytest.raises(PubNubError, match="enough"):
        await read_all()

    assert (dealt, ended) == ([0, 1, 2], ["closed"])


@pytest.mark.parametrize("count", [1, 3])
async def test_a_reader_that_stops_leaves_no_request(count: int) -> None:
    """The request can be running, or have failed."""
    begun, ended = list[int](), list[str]()
    before = asyncio.all_tasks()

    async with aclosing(ahead(slow_slices(begun, ended))) as slices:
        for _ in range(count):
            await anext(slices)
        await wait_until(lambda: len(begun) > count)

    assert ended == ["closed"]
    assert asyncio.all_tasks() == before


async def test_a_cancelled_reader_leaves_no_request() -> None:
    """The request it waits for is cancelled, too."""
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
def test_a_span_has_the_oldest_and_the_newest_timetoken(
    timetokens: list[object], expected: object
) -> None:
    """The items have any order, and timetokens any length."""
    assert span([{"actionTimetoken": at} for at in timetokens]) == expected
