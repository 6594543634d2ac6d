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
from reaction_tally.routes import Delivery, Parcel, by_slot

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
        """Return the node at a place."""
        return Named(f"{host}:{port}")


def sent(delivery: Delivery) -> dict[str, Any]:
    """Return what each node is sent."""
    return {parcel.node.name: parcel.lines for parcel in delivery.parcels(Client())}


def take(delivery: Delivery, *received: Any) -> None:
    """Let nodes answer, in the order of their names."""
    delivery.take(delivery.parcels(Client()), received)


def test_each_node_is_sent_what_it_has() -> None:
    """The replies come back in the order of the commands. A script is loaded where it runs."""
    load = ("SCRIPT", "LOAD", "text")
    delivery = Delivery(Request([COUNTS, SCHEMA, load, PAGE]))

    assert sent(delivery) == {"a": [SCHEMA], "b": [COUNTS, load, PAGE]}
    take(delivery, ["1"], ["counts", "sha", "page"])

    assert delivery.is_done
    assert delivery.result() == ["counts", "1", "sha", "page"]


def test_what_is_of_one_instant_is_a_transaction() -> None:
    """Its replies are those of EXEC. If a command is not taken, its reason counts."""
    delivery = Delivery(Request([COUNTS, PAGE], is_atomic=True))
    assert sent(delivery) == {"b": [("MULTI",), COUNTS, PAGE, ("EXEC",)]}

    take(delivery, ["OK", MovedError("5 c:1"), "QUEUED", ExecAbortError("aborted")])
    assert not delivery.is_done
    assert [error.node_addr for error in delivery.moved] == [("c", 1)] * 2
    # redis-py makes an error of a reply that is not what it expects.
    take(delivery, ["OK", ValueError("QUEUED"), "QUEUED", [["reaction:x", "1"], "page"]])
    assert delivery.result() == [["reaction:x", "1"], "page"]


def test_a_key_that_has_left_is_asked_for_where_it_went() -> None:
    """All of the request is sent again, so that its replies are of one time."""
    delivery = Delivery(Request([SCHEMA, COUNTS, PAGE]))
    take(delivery, ["1"], [AskError("5 c:1"), "page"])

    assert not delivery.is_done
    assert not delivery.moved
    assert sent(delivery) == {"a": [SCHEMA], "b": [PAGE], "c:1": [("ASKING",), COUNTS]}
    take(delivery, ["1"], ["page"], ["OK", MovedError("5 b:1")])
    assert len(delivery.moved) == 1
    assert sent(delivery) == {"a": [SCHEMA], "b": [COUNTS, PAGE]}


def test_a_node_that_takes_part_in_no_cluster_is_lost() -> None:
    """Then it is learned anew which node has which slots, as after a connection that fails."""
    delivery = Delivery(Request([SCHEMA]))
    take(delivery, [ClusterDownError("CLUSTERDOWN")])
    assert delivery.is_lost
    assert not delivery.is_done
    with pytest.raises(ClusterDownError):
        delivery.result()


def test_a_connection_that_fails_is_tried_again() -> None:
    """After it was learned anew which node has which slots."""
    delivery = Delivery(Request([SCHEMA]))
    delivery.fail(RedisConnectionError("refused"))
    assert (delivery.is_lost, delivery.is_done) == (True, False)
    with pytest.raises(RedisConnectionError):
        delivery.result()

    take(delivery, ["1"])
    assert (delivery.is_lost, delivery.is_done) == (False, True)
    assert delivery.result() == ["1"]


def test_who_has_waited_in_vain_does_not_wait_again() -> None:
    """But the slots are learned anew: the node may hang for ever."""
    delivery = Delivery(Request([SCHEMA]))
    delivery.fail(RedisTimeoutError("late"))

    assert delivery.is_lost
    assert delivery.is_done
    with pytest.raises(RedisTimeoutError):
        delivery.result()


@pytest.mark.parametrize("error", [AskError("5 c:1"), MovedError("5 c:1"), TryAgainError("later")])
def test_a_slot_on_its_way_is_said(error: Exception) -> None:
    """If it takes longer than all tries."""
    delivery = Delivery(Request([SCHEMA]))
    take(delivery, [error])
    with pytest.raises(RedisUnavailableError, match="moves the slot"):
        delivery.result()


def test_any_other_refusal_is_a_reply() -> None:
    """An operation knows what it means."""
    refusal = Exception("WRONGTYPE")
    parcel = Parcel(Named("a"), [0], [SCHEMA])
    delivery = Delivery(Request([SCHEMA]))
    delivery.take([parcel], [[refusal]])
    assert delivery.is_done
    assert delivery.result() == [refusal]


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
