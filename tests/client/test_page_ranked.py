"""Names in a page of messages that are too large to read all their actions."""

from collections.abc import Callable
from random import Random
from typing import Any, Final, cast

import pytest
from redis import Redis as BlockingRedis
from redis.asyncio import Redis

from reaction_tally import Page, Reaction, RedisUnavailableError
from reaction_tally.keys import RANKED_ABOVE, Keys
from reaction_tally.operations import Operation, Operations
from reaction_tally.pages import read_page
from reaction_tally.rows import PageQuery
from tests.client.reactions import BEGAN, Reactions, Tally, crowd, who_key, write
from tests.client.readers import Readers
from tests.histories import CHANNEL, MESSAGE
from tests.redis_server import RedisServer

KEYS: Final = Keys()
THUMB: Final = ("reaction", "👍")
ODD: Final = ("re:act%", "a:b%3A{c}}:actions:\n*")
RANKED: Final = RANKED_ABOVE + 1
SIZES: Final = (RANKED_ABOVE, RANKED)


def expected(reactions: Reactions, tally: Tally, names: int) -> Reaction:
    """Return a reaction as a page should have it."""
    users = reactions.who(tally)
    return Reaction(
        type=tally[0],
        value=tally[1],
        count=len(users),
        first_at=users[0].at,
        last_at=users[-1].at,
        names=tuple(each.user for each in users[:names]),
    )


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("names", [1, 3])
async def test_first_users_are_named(
    claimed: Redis, readers: Readers, size: int, names: int
) -> None:
    """However large the message is, and whatever its text; in steps as well."""
    reactions = crowd(size, THUMB, ODD, THUMB)
    await write(claimed, reactions)

    page = await readers.same_page([MESSAGE, "5"], names=names)

    assert page.messages[MESSAGE].reactions == (
        expected(reactions, THUMB, names),
        expected(reactions, ODD, names),
    )
    assert page.messages["5"].reactions == ()


async def test_what_is_mine_is_there_beside_names(claimed: Redis, readers: Readers) -> None:
    """Of the types that are wanted."""
    await write(claimed, crowd(RANKED, THUMB, ODD))

    page = await readers.same_page([MESSAGE], names=1, me="u7919", types=[ODD[0]])

    (odd,) = page.messages[MESSAGE].reactions
    assert (odd.value, odd.mine_at, odd.names) == (ODD[1], str(BEGAN + 1), ("u7919",))


@pytest.mark.parametrize(("size", "names", "trips"), [(RANKED, 2, 2), (RANKED, 0, 1), (9, 2, 1)])
async def test_names_of_a_large_message_cost_a_second_trip(
    claimed: Redis, readers: Readers, size: int, names: int, trips: int
) -> None:
    """Nothing else does."""
    await write(claimed, crowd(size))
    await readers.script.page(CHANNEL, [MESSAGE])  # Redis learns the script
    await claimed.config_resetstat()

    await readers.script.page(CHANNEL, [MESSAGE], names=names, me="u0")

    stats = await claimed.info("commandstats")
    assert stats["cmdstat_evalsha"]["calls"] == trips


@pytest.mark.parametrize("left", [0, 1, RANKED // 2 - 1])
async def test_a_sorted_set_that_is_not_complete_names_nobody(
    claimed: Redis, readers: Readers, left: int
) -> None:
    """The worker has not written it yet. The other value has its names."""
    reactions = crowd(RANKED, THUMB, ODD)
    await write(claimed, reactions)
    await cast("Any", claimed).zremrangebyrank(who_key(ODD), left, -1)

    page = await readers.same_page([MESSAGE], names=2)

    thumb, odd = page.messages[MESSAGE].reactions
    assert thumb == expected(reactions, THUMB, 2)
    assert (odd.count, odd.names, odd.first_at, odd.last_at) == (RANKED // 2, (), None, None)
    assert odd.more


async def test_a_message_with_very_many_values_names_nobody(
    claimed: Redis, readers: Readers
) -> None:
    """That would be very many keys. Counts, and what is mine, are there."""
    values = [("reaction", f"v{number}") for number in range(RANKED)]
    await write(claimed, crowd(RANKED, *values))

    page = await readers.same_page([MESSAGE], names=2, me="u0")

    reactions = page.messages[MESSAGE].reactions
    assert len(reactions) == RANKED
    assert {it.names for it in reactions} == {()}
    assert [it.value for it in reactions if it.mine] == ["v0"]


@pytest.mark.parametrize(
    "first",
    [
        *("17600000001728660", "17000000000000000", "16999999999999999", "10000000000000000"),
        *("17999999999999999", "18000000000000000", "25999999999999999", "26007199254740860"),
        *("9000000000000001", "9999999999999999", "13000000000000000"),
    ],
)
async def test_timetokens_of_names_are_exact(claimed: Redis, readers: Readers, first: str) -> None:
    """A double has no room for 17 digits. Scores have, until 2052."""
    reactions = Reactions()
    for number in range(RANKED):
        reactions.add(f"u{number}", str(int(first) + number))
    await write(claimed, reactions)

    (reaction,) = (await readers.same_page([MESSAGE], names=1)).messages[MESSAGE].reactions
    who = await readers.script.who(CHANNEL, MESSAGE, *THUMB, limit=1_000)

    assert (reaction.first_at, reaction.last_at) == (first, str(int(first) + RANKED - 1))
    assert who.reactors == tuple(reactions.who())


@pytest.mark.parametrize("is_decoded", [True, False])
@pytest.mark.parametrize("protocol", [2, 3])
@pytest.mark.parametrize("is_script_refused", [True, False])
async def test_any_client_of_redis_py_will_do(
    claimed: Redis, valkey: RedisServer, is_decoded: bool, protocol: int, is_script_refused: bool
) -> None:
    """It decodes responses, or not."""
    reactions = crowd(RANKED, THUMB, ODD)
    await write(claimed, reactions)
    operations = Operations(KEYS.namespace, "a test")
    operations.is_script_refused = is_script_refused
    options: Any = {"decode_responses": is_decoded, "protocol": protocol}

    with BlockingRedis.from_url(valkey.url, **options) as client:
        query = PageQuery(channel=CHANNEL, timetokens=[MESSAGE], names=2)
        page, _ = run(client, read_page(operations, query), lambda _: None)

    expected_page = {expected(reactions, tally, 2) for tally in (THUMB, ODD)}
    assert set(page.messages[MESSAGE].reactions) == expected_page


@pytest.mark.parametrize("count", ["0", str(RANKED)])
async def test_what_another_program_wrote_costs_only_names(
    claimed: Redis, readers: Readers, count: str
) -> None:
    """A who key of another type, and a count of zero, which the worker never writes."""
    await write(claimed, crowd(RANKED))
    await claimed.delete(who_key())
    if count != "0":
        await claimed.set(who_key(), "not ours")
    await cast("Any", claimed).hset(KEYS.counts(CHANNEL, MESSAGE), "reaction:👍", count)

    page = await readers.same_page([MESSAGE], names=1)

    (reaction,) = page.messages[MESSAGE].reactions
    assert (reaction.count, reaction.names, reaction.first_at) == (int(count), (), None)


async def test_a_page_has_a_limit_of_names_of_large_messages(
    claimed: Redis, readers: Readers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first messages have theirs. To read all would keep Redis busy."""
    monkeypatch.setattr("reaction_tally.ranked.MOST_WHO_KEYS", 1)
    monkeypatch.setattr("reaction_tally.pages.MOST_WHO_KEYS", 1)
    await write(claimed, crowd(RANKED))
    other = str(int(MESSAGE) + 1)
    commands = cast("Any", claimed)
    for kind in (KEYS.counts, KEYS.actions):
        await commands.copy(kind(CHANNEL, MESSAGE), kind(CHANNEL, other))
    await commands.copy(who_key(), KEYS.who(CHANNEL, other, "reaction:👍"))

    for first, second in ((MESSAGE, other), (other, MESSAGE)):
        page = await readers.same_page([first, second], names=1)
        names = [page.messages[each].reactions[0].names for each in (first, second)]
        assert names == [("u0",), ()]


@pytest.mark.parametrize("seed", range(5))
async def test_both_ways_tell_the_truth(claimed: Redis, readers: Readers, seed: int) -> None:
    """While a message becomes large, and small again."""
    random, reactions = Random(seed), Reactions()
    tallies = (THUMB, ODD, ("reaction", "🎉"))
    for number in range(40):
        for place in range(random.choice([1, 60])):
            reactions.add(f"u{number}.{place}", str(BEGAN + random.randrange(10**6)), THUMB)
        for tally, user in random.sample(list(reactions.at), k=len(reactions.at) // 4):
            reactions.remove(user, tally)
            if random.random() < 0.5:
                reactions.add(user, str(BEGAN + random.randrange(10**6)), random.choice(tallies))
        await write(claimed, reactions)
        names = random.randint(1, 3)

        page = await readers.same_page([MESSAGE], names=names)

        truth = {tally: expected(reactions, tally, names) for tally in reactions.tallies()}
        found = {(it.type, it.value): it for it in page.messages[MESSAGE].reactions}
        assert found == truth


def run(
    redis: Any,
    operation: Operation[Page],
    between: Callable[[int], None],
) -> tuple[Page, int]:
    """Run an operation, and something after each of its trips; return its page, and the trips."""
    request, trips = next(operation), 0
    while True:
        pipe = redis.pipeline(transaction=request.is_atomic)
        for command in request.commands:
            pipe.execute_command(*command)
        trips += 1
        replies = pipe.execute(raise_on_error=False)
        between(trips)
        try:
            request = operation.send(replies)
        except StopIteration as end:
            return end.value, trips


class Growing:
    """A message that becomes larger between the trips of a reader."""

    def __init__(self, redis: Any, is_script_refused: bool) -> None:
        self.redis = redis
        self.reactions = Reactions()
        self._operations = Operations(KEYS.namespace, "a test")
        self._operations.is_script_refused = is_script_refused

    def grow(self, count: int, tally: Tally) -> None:
        """Let so many users choose a value."""
        for number in range(count):
            place = len(self.reactions.at)
            self.reactions.add(f"{tally[1]}{number}", str(BEGAN + place), tally)
        for command in self.reactions.commands():
            self.redis.execute_command(*command)

    def page(self, between: Callable[[int], None]) -> tuple[Page, int]:
        """Read a page; return the trips, too."""
        query = PageQuery(channel=CHANNEL, timetokens=[MESSAGE], names=2)
        return run(self.redis, read_page(self._operations, query), between)

    def truth(self) -> set[Reaction]:
        """Return what a page should have."""
        return {expected(self.reactions, each, 2) for each in self.reactions.tallies()}


@pytest.fixture(params=[False, True], ids=["script", "steps"])
def growing(request: pytest.FixtureRequest, claimed: Redis, valkey: RedisServer) -> Any:
    """A message without reactions yet."""
    with BlockingRedis.from_url(valkey.url) as redis:
        yield Growing(redis, request.param)


def test_a_value_that_comes_between_two_trips_has_its_names(growing: Growing) -> None:
    """The reader asks again; a page is always of one instant."""
    growing.grow(RANKED, THUMB)
    last_change = 2

    def change(trips: int) -> None:
        if trips <= last_change:
            growing.grow(1, ("reaction", f"new{trips}"))

    page, trips = growing.page(change)

    assert set(page.messages[MESSAGE].reactions) == growing.truth()
    assert trips > last_change


def test_a_message_that_becomes_large_between_two_trips_has_its_names(growing: Growing) -> None:
    """It had few actions when the reader asked first."""
    growing.grow(RANKED_ABOVE, THUMB)

    def change(trips: int) -> None:
        if trips == 1:
            growing.grow(1, ODD)

    page, _ = growing.page(change)

    (thumb, *_) = page.messages[MESSAGE].reactions
    assert thumb.names == (f"{THUMB[1]}0", f"{THUMB[1]}1")


def test_a_channel_that_never_rests_is_an_error(growing: Growing) -> None:
    """A reader does not ask for ever."""
    growing.grow(RANKED, THUMB)

    with pytest.raises(RedisUnavailableError, match="changes too fast"):
        growing.page(lambda trips: growing.grow(1, ("reaction", f"new{trips}")))
