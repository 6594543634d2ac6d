"""The faults of storage and lists, one by one, without HTTP."""

import json

from tests.emulator.clients import MESSAGE, ROOM, keyset, present
from worker.emulator import FAULT_NAMES, Action, Page, State, Window

EVERYTHING = Window()


def add(state: State, value: str, uuid: str = "ana") -> Action:
    """Add one reaction, and return the action of the answer."""
    return state.add("room", MESSAGE, "t", value, uuid).actions[-1]


def fill(state: State, count: int) -> list[Action]:
    """Add that many actions, each by its own user."""
    return [add(state, "v", f"u{n}") for n in range(count)]


def uuids(page: Page) -> list[str]:
    """Return the users of a page's actions."""
    return [action.identity.uuid for action in page.actions]


def test_rates_of_zero_leave_a_list_exact() -> None:
    """It shows additions and removals at once."""
    state, _ = keyset()
    state.faults.replace(dict.fromkeys(FAULT_NAMES, 0))
    actions = fill(state, 10)
    state.remove("room", MESSAGE, actions[3].timetoken, "u3")
    page = state.page("room", EVERYTHING)
    assert uuids(page) == [f"u{n}" for n in range(10) if n != 3]
    assert page.more is None
    assert not state.faults.struck


def test_an_unpublished_change_is_stored_without_event() -> None:
    """Both kinds of change say so."""
    state, _ = keyset(unpublished=1.0)
    cursor = present(state)
    change = state.add("room", MESSAGE, "t", "v", "ana")
    assert not change.published
    assert len(state.actions("room")) == 1
    assert not state.remove("room", MESSAGE, change.actions[0].timetoken, "ana").published
    assert state.actions("room") == []
    assert (state.poll(ROOM, cursor).messages, state.published) == ((), 0)


def test_a_tied_action_shares_its_predecessors_timetoken() -> None:
    """Only its own user removes it."""
    state, _ = keyset(tie=1.0)
    first, second = add(state, "v", "ana"), add(state, "v", "ben")
    assert first.timetoken == second.timetoken
    removed = state.remove("room", MESSAGE, first.timetoken, "ben")
    assert removed.actions == (second,)
    assert state.actions("room") == [first]


def test_one_removal_can_remove_several_tied_actions() -> None:
    """Each gets an event."""
    state, _ = keyset(tie=1.0)
    first = add(state, "v1")
    add(state, "v2")
    cursor = present(state)
    assert len(state.remove("room", MESSAGE, first.timetoken, "ana").actions) == 2
    events = [json.loads(message)["d"] for message in state.poll(ROOM, cursor).messages]
    assert [(event["event"], event["data"]["value"]) for event in events] == [
        ("removed", "v1"),
        ("removed", "v2"),
    ]


def test_a_twin_is_stored_beside_the_first_and_counts_once() -> None:
    """After the removal of one, the user still counts."""
    state, _ = keyset(twin=1.0)
    answered = add(state, "v")
    first, second = state.actions("room")
    assert first.identity == second.identity
    assert answered == second
    assert first.timetoken < second.timetoken
    truth = {"room": {MESSAGE: {"t": {"v": 1}}}}
    assert state.truth() == truth
    assert state.published == 2
    state.remove("room", MESSAGE, answered.timetoken, "ana")
    assert (state.actions("room"), state.truth()) == ([first], truth)


def test_a_twin_also_takes_the_place_of_a_conflict() -> None:
    """It is stored, without a 409."""
    state, _ = keyset()
    first = add(state, "v")
    state.faults.replace({"twin": 1.0})
    assert add(state, "v").timetoken > first.timetoken


def test_an_action_added_again_can_get_a_smaller_timetoken() -> None:
    """It is smaller than before. New identities are spared."""
    state, _ = keyset(readd=1.0)
    first = add(state, "v")
    assert add(state, "other").timetoken > first.timetoken
    state.remove("room", MESSAGE, first.timetoken, "ana")
    again = add(state, "v")
    assert again.timetoken < first.timetoken
    assert state.actions("room")[0] == again


def test_a_stale_list_shows_the_past() -> None:
    """The last additions and removals show some seconds later."""
    state, clock = keyset(stale=1.0)
    old = fill(state, 3)
    clock.tick(10)
    state.remove("room", MESSAGE, old[1].timetoken, "u1")
    add(state, "new", "late")
    assert uuids(state.page("room", EVERYTHING)) == ["u0", "u1", "u2"]
    assert uuids(state.page("room", Window(start=old[2].timetoken, limit=1))) == ["u1"]
    clock.tick(3)
    assert uuids(state.page("room", EVERYTHING)) == ["u0", "u2", "late"]


def test_an_empty_list_hides_everything() -> None:
    """The actions are still stored."""
    state, _ = keyset(empty=1.0)
    fill(state, 3)
    assert state.page("room", EVERYTHING) == Page(())


def test_an_empty_channel_is_alone() -> None:
    """It lists nothing for a while. Its events and the other channels go on."""
    state, clock = keyset(empty_channel=1.0)
    cursor = present(state)
    fill(state, 3)
    state.add("hall", MESSAGE, "t", "v", "ana")
    assert state.page("room", EVERYTHING) == Page(())
    assert uuids(state.page("hall", EVERYTHING)) == ["ana"]
    assert len(state.poll(ROOM, cursor).messages) == 3

    state.faults.replace({})
    assert state.page("room", EVERYTHING) == Page(())
    clock.tick(3600)
    assert uuids(state.page("room", EVERYTHING)) == ["u0", "u1", "u2"]


def test_a_channel_lists_nothing_for_as_long_as_wanted() -> None:
    """The time begins with the call, and can be ended by another one."""
    state, clock = keyset()
    fill(state, 2)
    state.list_nothing("room", 7 * 86400)
    clock.tick(6 * 86400)
    assert state.page("room", EVERYTHING) == Page(())
    state.list_nothing("room", 0)
    assert uuids(state.page("room", EVERYTHING)) == ["u0", "u1"]


def test_a_partial_list_hides_some_actions() -> None:
    """There is no sign of it. The others are in order."""
    state, _ = keyset(partial=1.0)
    fill(state, 20)
    shown = state.page("room", EVERYTHING)
    assert 0 < len(shown.actions) < 20
    assert list(shown.actions) == [
        action for action in state.actions("room") if action in shown.actions
    ]
    assert shown.more is None


def test_a_server_that_stops_early_says_where_to_go_on() -> None:
    """Pages from ``more`` + 1 show everything."""
    state, _ = keyset(more=1.0)
    fill(state, 50)
    seen: set[str] = set()
    start = None
    while (page := state.page("room", Window(start=start))).more is not None:
        seen |= set(uuids(page))
        assert page.more == page.actions[0].timetoken
        start = page.more + 1
    assert seen | set(uuids(page)) == {f"u{n}" for n in range(50)}
