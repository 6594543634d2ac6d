"""Commands go to the nodes that have their keys; what nodes refuse is asked again elsewhere."""

from dataclasses import dataclass
from typing import Any, Final

import pytest
from redis.crc import key_slot
from redis.exceptions import (
    AskError,
    ClusterDownError,
    ExecAbortError,
    MovedError,
    TryAgainError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from reaction_tally import RedisUnavailableError
from reaction_tally.operations import Request
from reaction_tally.routes import NodeCommands, RoutedRequest, by_slot

SCHEMA: Final = ("HGET", "tally:meta", "schema")
PAGE: Final = ("EVALSHA", "sha", 1, "tally:{room}:head")
COUNTS: Final = ("HGETALL", "tally:{room}:counts:1")


@dataclass(frozen=True)
class Named:
    """A node."""

    name: str


class Client:
    """Knows that keys with braces are on b, and all others on a."""

    def get_node_from_key(self, key: str) -> Named:
        """Return the node of a key."""
        return Named("b" if "{" in key else "a")

    def get_node(self, host: str, port: int) -> Named:
        """Return the node at an address."""
        return Named(f"{host}:{port}")


def sent(routed: RoutedRequest) -> dict[str, Any]:
    """Return what each node is sent."""
    return {part.node.name: part.to_send for part in routed.by_node(Client())}


def take(routed: RoutedRequest, *received: Any) -> None:
    """Let nodes answer, in the order of their names."""
    routed.take(routed.by_node(Client()), received)


def test_each_node_is_sent_what_it_has() -> None:
    """The replies come back in the order of the commands. A script is loaded where it runs."""
    load = ("SCRIPT", "LOAD", "text")
    routed = RoutedRequest(Request([COUNTS, SCHEMA, load, PAGE]))

    assert sent(routed) == {"a": [SCHEMA], "b": [COUNTS, load, PAGE]}
    take(routed, ["1"], ["counts", "sha", "page"])

    assert routed.is_done
    assert routed.result() == ["counts", "1", "sha", "page"]


def test_what_is_of_one_instant_is_a_transaction() -> None:
    """Its replies are those of EXEC. If a command is not taken, its reason counts."""
    routed = RoutedRequest(Request([COUNTS, PAGE], is_atomic=True))
    assert sent(routed) == {"b": [("MULTI",), COUNTS, PAGE, ("EXEC",)]}

    take(routed, ["OK", MovedError("5 c:1"), "QUEUED", ExecAbortError("aborted")])
    assert not routed.is_done
    assert [error.node_addr for error in routed.moved] == [("c", 1)] * 2
    # redis-py makes an error of a reply that is not what it expects.
    take(routed, ["OK", ValueError("QUEUED"), "QUEUED", [["reaction:x", "1"], "page"]])
    assert routed.result() == [["reaction:x", "1"], "page"]


def test_a_key_that_has_left_is_asked_for_where_it_went() -> None:
    """All of the request is sent again, so that its replies are of one time."""
    routed = RoutedRequest(Request([SCHEMA, COUNTS, PAGE]))
    take(routed, ["1"], [AskError("5 c:1"), "page"])

    assert not routed.is_done
    assert not routed.moved
    assert sent(routed) == {"a": [SCHEMA], "b": [PAGE], "c:1": [("ASKING",), COUNTS]}
    take(routed, ["1"], ["page"], ["OK", MovedError("5 b:1")])
    assert len(routed.moved) == 1
    assert sent(routed) == {"a": [SCHEMA], "b": [COUNTS, PAGE]}


def test_a_node_that_takes_part_in_no_cluster() -> None:
    """Then the slot map is read again, as after a connection that fails."""
    routed = RoutedRequest(Request([SCHEMA]))
    take(routed, [ClusterDownError("CLUSTERDOWN")])
    assert routed.is_map_stale
    assert not routed.is_done
    with pytest.raises(ClusterDownError):
        routed.result()


def test_a_connection_that_fails_is_tried_again() -> None:
    """After the slot map was read again."""
    routed = RoutedRequest(Request([SCHEMA]))
    routed.fail(RedisConnectionError("refused"))
    assert (routed.is_map_stale, routed.is_done) == (True, False)
    with pytest.raises(RedisConnectionError):
        routed.result()

    take(routed, ["1"])
    assert (routed.is_map_stale, routed.is_done) == (False, True)
    assert routed.result() == ["1"]


def test_who_has_waited_in_vain_does_not_wait_again() -> None:
    """But the slot map is read again: the node may hang for ever."""
    routed = RoutedRequest(Request([SCHEMA]))
    routed.fail(RedisTimeoutError("late"))

    assert routed.is_map_stale
    assert routed.is_done
    with pytest.raises(RedisTimeoutError):
        routed.result()


@pytest.mark.parametrize("error", [AskError("5 c:1"), MovedError("5 c:1"), TryAgainError("later")])
def test_a_slot_on_its_way_is_said(error: Exception) -> None:
    """If it takes longer than all tries."""
    routed = RoutedRequest(Request([SCHEMA]))
    take(routed, [error])
    with pytest.raises(RedisUnavailableError, match="moves the slot"):
        routed.result()


def test_any_other_refusal_is_a_reply() -> None:
    """An operation knows what it means."""
    refusal = Exception("WRONGTYPE")
    part = NodeCommands(Named("a"), [0], [SCHEMA])
    routed = RoutedRequest(Request([SCHEMA]))
    routed.take([part], [[refusal]])
    assert routed.is_done
    assert routed.result() == [refusal]


def test_one_command_names_keys_of_one_slot() -> None:
    """Neighbours go together, so that a round trip has few nodes."""
    keys = [f"tally:{{c{number}}}:head" for number in range(40_000)]

    trips = by_slot(keys, 1_000)

    groups = [group for trip in trips for group in trip]
    slots = [key_slot(group[0].encode()) for group in groups]
    assert all(len({key_slot(key.encode()) for key in group}) == 1 for group in groups)
    assert sorted(key for group in groups for key in group) == sorted(keys)
    assert slots == sorted(set(slots))
    assert all(1_000 <= sum(map(len, trip)) < 1_050 for trip in trips[:-1])
    assert by_slot([], 1_000) == []
