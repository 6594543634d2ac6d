"""``top``: the messages of a channel with the most reactions."""

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from random import Random
from typing import Any, Final, cast

import pytest
from redis.asyncio import Redis

from reaction_tally import AsyncTallyReader, NotTheseTalliesError, TallyReadError, TopMessage
from reaction_tally import top as top_module
from reaction_tally.keys import Keys
from reaction_tally.operations import Operations, Request
from reaction_tally.top import TopQuery, read_top
from tests.histories import CHANNEL
from tests.redis_server import RedisServer
from tests.store.examples import apply
from worker.domain.action import Added, Identity
from worker.store.store import Store

KEYS: Final = Keys()
FIRST: Final = 17_600_000_000_000_000
MINUTE: Final = 600_000_000
"""In ticks of a timetoken."""
THUMB, PARTY, SEEN = ("reaction", "👍"), ("reaction", "🎉"), ("receipt", "👍")
Tally = tuple[str, str]


def message(number: int) -> str:
    """Return the timetoken of a message; each is a minute younger than the one before."""
    return str(FIRST + number * MINUTE)


def reactions(number: int, count: int, tally: Tally = THUMB) -> list[Added]:
    """Return the reactions of some users to a message, an hour after it."""
    at = str(FIRST + (number + 60) * MINUTE)
    identities = [Identity(CHANNEL, message(number), *tally, f"user-{n}") for n in range(count)]
    return [Added(identity, at, at) for identity in identities]


@pytest.fixture
def few_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read two messages in one round trip."""
    monkeypatch.setattr(top_module, "MESSAGES_AT_ONCE", 2)


async def test_the_most_reactions_come_first(store: Store, reader: Any) -> None:
    """Of equal ones, the newest message."""
    for number, count in enumerate((1, 3, 2, 3)):
        await apply(store, reactions(number, count))

    assert await reader.top(CHANNEL, limit=3) == (
        TopMessage(message(3), 3),
        TopMessage(message(1), 3),
        TopMessage(message(2), 2),
    )
    assert await reader.top("empty") == ()


async def test_one_value_or_one_type_is_counted(store: Store, reader: Any) -> None:
    """A message without it is not there."""
    await apply(store, [*reactions(0, 2), *reactions(0, 1, PARTY), *reactions(0, 4, SEEN)])
    await apply(store, reactions(1, 3, PARTY))
    first, second = message(0), message(1)

    assert await reader.top(CHANNEL) == (TopMessage(first, 7), TopMessage(second, 3))
    assert await reader.top(CHANNEL, type="reaction", value="👍") == (TopMessage(first, 2),)
    by_type = await reader.top(CHANNEL, type="reaction")
    assert by_type == (TopMessage(second, 3), TopMessage(first, 3))
    assert await reader.top(CHANNEL, value="👍") == (TopMessage(first, 6),)
    assert await reader.top(CHANNEL, value="none") == ()


async def test_older_messages_are_left_out(store: Store, reader: Any) -> None:
    """They may have new reactions. The time is a timetoken, as text or number, or a datetime."""
    for number in range(3):
        await apply(store, reactions(number, 3 - number))
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=int(message(1)) // 10)

    for since in (message(1), int(message(1)), moment):
        assert await reader.top(CHANNEL, since=since) == (
            TopMessage(message(1), 2),
            TopMessage(message(2), 1),
        )
    assert await reader.top(CHANNEL, since=int(message(2)) + 1) == ()


@pytest.mark.usefixtures("few_at_once")
@pytest.mark.parametrize("seed", range(5))
async def test_every_message_is_counted(store: Store, reader: Any, seed: int) -> None:
    """However many there are, and however many have an event in the same millisecond."""
    random = Random(seed)
    counts: dict[tuple[int, Tally], int] = {}
    for number in random.sample(range(30), 20):
        for tally in random.sample((THUMB, PARTY, SEEN), random.randint(1, 3)):
            counts[number, tally] = random.randint(1, 4)
            # Half of them have their newest event at one time.
            place = number if random.random() < 0.5 else 0
            events = reactions(number, counts[number, tally], tally)
            at = reactions(place, 1)[0].action_timetoken
            await apply(store, [Added(event.identity, at, at) for event in events])

    for type, value in ((None, None), (None, "👍"), ("reaction", None), THUMB):
        totals: dict[str, int] = {}
        for (number, tally), count in counts.items():
            if type in (None, tally[0]) and value in (None, tally[1]) and number >= 5:
                totals[message(number)] = totals.get(message(number), 0) + count
        ranked = sorted(totals.items(), key=lambda item: (-item[1], -int(item[0])))
        top = await reader.top(CHANNEL, type=type, value=value, since=message(5), limit=7)
        assert [(each.timetoken, each.count) for each in top] == ranked[:7]


@pytest.mark.usefixtures("few_at_once")
async def test_a_message_that_moves_meanwhile_is_counted(store: Store, claimed: Redis) -> None:
    """A new reaction puts it at the front of the index, which has been read already."""
    for number in range(6):
        await apply(store, reactions(number, 1 + (number == 0)))
    query = TopQuery(channel=CHANNEL, type=None, value=None, since=None, limit=1)
    operation = read_top(Operations("tally", "Redis"), query)
    request = next(operation)
    replies = await answered(claimed, request)
    later = reactions(100, 1)[0].action_timetoken
    moved = Identity(CHANNEL, message(0), *THUMB, "later")

    await apply(store, [Added(moved, later, later)])

    top: tuple[TopMessage, ...] = ()
    while not top:
        try:
            request = operation.send(replies)
            replies = await answered(claimed, request)
        except StopIteration as end:
            top = end.value
    assert top == (TopMessage(message(0), 3),)


def test_nothing_newer_takes_one_small_request() -> None:
    """However many older messages the channel has."""
    query = TopQuery(channel=CHANNEL, type=None, value=None, since=message(7), limit=1)
    operation = read_top(Operations("tally", "Redis"), query)
    next(operation)

    with pytest.raises(StopIteration) as ended:
        operation.send([b"1", []])
    assert ended.value.value == ()


async def answered(redis: Redis, request: Request) -> Sequence[Any]:
    """Return the replies to a request."""
    pipe = cast("Any", redis).pipeline(transaction=False)
    for command in request.commands:
        pipe.execute_command(*command)
    replies: Sequence[Any] = await pipe.execute()
    return replies


async def test_an_empty_answer_is_no_mistake_in_the_address(valkey: RedisServer) -> None:
    """Another namespace has no tallies."""
    async with AsyncTallyReader.from_url(valkey.url, namespace="other") as reader:
        with pytest.raises(NotTheseTalliesError):
            await reader.top(CHANNEL)


@pytest.mark.parametrize("kind", ["messages", "counts"])
async def test_a_key_of_another_program_is_an_error(
    store: Store, claimed: Redis, reader: Any, kind: str
) -> None:
    """And no empty answer."""
    await apply(store, reactions(0, 1))
    key = KEYS.messages(CHANNEL) if kind == "messages" else KEYS.counts(CHANNEL, message(0))
    await claimed.set(key, "not ours")

    with pytest.raises(TallyReadError, match="WRONGTYPE"):
        await reader.top(CHANNEL)


WRONG: Final[list[tuple[dict[str, Any], str]]] = [
    ({"since": datetime(2026, 1, 1)}, "needs a time zone"),
    ({"since": "yesterday"}, "digits 0 to 9"),
    ({"since": datetime(1969, 1, 1, tzinfo=UTC)}, "of 17 digits"),
    ({"since": 1_760_000_000}, "of 17 digits"),
    ({"since": date(2026, 1, 1)}, "a timetoken or a datetime"),
    ({"since": 1.7e16}, "a timetoken or a datetime"),
    ({"limit": 0}, "1 or more"),
    ({"limit": 1_001}, "at most"),
    ({"type": 5}, "is text"),
    ({"value": 5}, "is text"),
]


@pytest.mark.parametrize(("options", "sentence"), WRONG)
async def test_a_wrong_argument_is_named(
    reader: Any, options: dict[str, Any], sentence: str
) -> None:
    """Before anything is asked."""
    with pytest.raises((TypeError, ValueError), match=sentence):
        await reader.top(CHANNEL, **options)
