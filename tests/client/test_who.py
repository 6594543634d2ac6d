"""``who``: the users of one value, page by page, oldest first."""

from typing import Any, Final, cast

import pytest
from redis import Redis as BlockingRedis
from redis.asyncio import Redis

from reaction_tally import (
    AsyncTallyReader,
    NotPermittedError,
    NotTheseTalliesError,
    Reactor,
    TallyReader,
    TallyReadError,
    Who,
)
from reaction_tally.arguments import who_of
from reaction_tally.keys import RANKED_ABOVE, Keys
from reaction_tally.operations import Operations
from reaction_tally.who import read_who
from tests.client.in_thread import InThread
from tests.client.reactions import BEGAN, Reactions, Tally, crowd, who_key, write
from tests.histories import CHANNEL, MESSAGE, added
from tests.redis_server import RedisServer
from tests.store.examples import apply
from worker.domain.action import Added, Identity, Removed
from worker.store.store import Store

KEYS: Final = Keys()
THUMB: Final = ("reaction", "👍")
LARGE: Final = 5 * RANKED_ABOVE
"""One step of HSCAN does not read so many actions."""
SIZES: Final = (RANKED_ABOVE, RANKED_ABOVE + 1, LARGE)


async def who(reader: Any, tally: Tally = THUMB, **options: Any) -> Who:
    """Return a page of the message."""
    page = await reader.who(CHANNEL, MESSAGE, *tally, **options)
    return cast("Who", page)


async def everybody(reader: Any, tally: Tally = THUMB, limit: int = 50) -> list[Reactor]:
    """Return the users of all pages."""
    page = await who(reader, tally, limit=limit)
    found = list(page.reactors)
    while page.after:
        page = await who(reader, tally, limit=limit, after=page.after)
        found += page.reactors
    return found


async def commands_of(redis: Any, read: Any) -> set[str]:
    """Return which commands a read needs."""
    await redis.config_resetstat()
    await read
    stats = await redis.info("commandstats")
    names = {name.removeprefix("cmdstat_") for name in stats}
    return names - {"config|resetstat", "multi", "exec", "client|setinfo", "hello"}


async def test_users_come_oldest_first(claimed: Redis, reader: Any) -> None:
    """Some at a time. The total is of all."""
    await write(claimed, crowd(3))

    page = await who(reader, limit=2)

    assert page.reactors == (Reactor("u0", str(BEGAN)), Reactor("u7919", str(BEGAN + 1)))
    assert page.total == 3
    assert page.after
    rest = await who(reader, limit=2, after=page.after)
    assert rest == Who(reactors=(Reactor("u15838", str(BEGAN + 2)),), total=3)


async def test_what_the_worker_counted_is_read(claimed: Redis, reader: Any) -> None:
    """Of a small message, which has no sorted set."""
    await apply(Store(claimed, KEYS), [added(2)])

    page = await reader.who(CHANNEL, int(MESSAGE), "reaction", "👍")

    assert page == Who(reactors=(Reactor("ana", "10000000000000002"),), total=1)


@pytest.mark.parametrize("gone", [0, 1, 150, 400])
async def test_what_the_worker_ranked_is_read(store: Store, reader: Any, gone: int) -> None:
    """Of a large message, which grows, and shrinks again."""
    users = [Identity(CHANNEL, MESSAGE, *THUMB, f"u{number % 7}:{number}") for number in range(400)]
    times = [str(BEGAN + number) for number in range(400)]
    additions = list(map(Added, users, times, times))
    for start in range(0, 400, 50):
        await apply(store, additions[start : start + 50])
    removals = [Removed(user, at, at) for user, at in zip(users, times, strict=True)][:gone]
    for start in range(0, gone, 50):
        await apply(store, removals[start : start + 50])

    expected = [Reactor(user.uuid, at) for user, at in zip(users, times, strict=True)][gone:]

    assert await everybody(reader, limit=77) == expected


async def test_a_message_without_reactions_has_nobody(claimed: Redis, reader: Any) -> None:
    """Nor has a value that nobody chose, or another type."""
    nobody = Who(reactors=(), total=0)
    assert await who(reader) == nobody

    await write(claimed, crowd(RANKED_ABOVE + 1))
    assert await who(reader, ("reaction", "🎉")) == nobody
    assert await who(reader, ("receipt", "👍")) == nobody
    await claimed.delete(KEYS.counts(CHANNEL, MESSAGE))  # as an eviction may do
    assert await who(reader) == nobody


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("limit", [1, 43, 1_000])
async def test_all_pages_have_everybody(claimed: Redis, reader: Any, size: int, limit: int) -> None:
    """Of a small message, and of a ranked one."""
    reactions = crowd(size, THUMB, ("reaction", "🎉"))
    await write(claimed, reactions)

    assert await everybody(reader, limit=limit) == reactions.who()
    assert (await who(reader)).total == len(reactions.who())


@pytest.mark.parametrize("size", SIZES)
async def test_a_page_costs_one_request(claimed: Redis, reader: Any, size: int) -> None:
    """It never reads all actions of a large message."""
    await write(claimed, crowd(size))
    page = await who(reader)

    for after in (None, page.after):
        commands = await commands_of(claimed, who(reader, after=after))
        assert commands == {"hget", "zcard", "zrangebyscore", "hscan"}


@pytest.mark.parametrize("left", [0, 1, LARGE - 1])
async def test_a_sorted_set_that_is_not_complete_is_not_believed(
    claimed: Redis, reader: Any, left: int
) -> None:
    """After an update of the worker, or an eviction. Then all actions are read."""
    reactions = crowd(LARGE)
    await write(claimed, reactions)
    await cast("Any", claimed).zremrangebyrank(who_key(), left, -1)

    assert await everybody(reader, limit=90) == reactions.who()
    assert "hgetall" in await commands_of(claimed, who(reader))


@pytest.mark.parametrize("size", SIZES)
async def test_users_of_one_timetoken_are_in_the_order_of_their_bytes(
    claimed: Redis, reader: Any, size: int
) -> None:
    """UTF-8, as a sorted set has it: UTF-16 would have 🎉 before ﬀ."""
    reactions = Reactions()
    for number in range(size - 4):
        reactions.add(f"u{number}", str(BEGAN))
    for user in ("", "🎉", "ﬀ", "\0: b"):
        reactions.add(user, str(BEGAN))
    await write(claimed, reactions)

    assert await everybody(reader, limit=7) == reactions.who()
    last = await who(reader, limit=2, after=f"{BEGAN}:u99")
    assert [each.user for each in last.reactors] == ["ﬀ", "🎉"]
    assert last.after is None


@pytest.mark.parametrize("size", SIZES)
async def test_a_page_follows_somebody_who_has_gone(claimed: Redis, reader: Any, size: int) -> None:
    """Nobody who stays is repeated or left out."""
    reactions = crowd(size)
    await write(claimed, reactions)
    page = await who(reader, limit=10)
    before = reactions.who()
    for each in before[5:15]:
        reactions.remove(each.user)
    reactions.add("early", str(BEGAN + 3))
    reactions.add("late", str(BEGAN + size))
    await write(claimed, reactions)

    rest = await who(reader, limit=1_000, after=page.after)

    assert rest.reactors == (*before[15:], Reactor("late", str(BEGAN + size)))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("odd", ["*", "?", "[a]", "[^b]", "\\", "\\*", "a:b%3A", "{c}\n", "%", ""])
async def test_any_text_is_a_value(claimed: Redis, reader: Any, size: int, odd: str) -> None:
    """HSCAN has patterns, and the fields of actions are encoded."""
    tallies = [(f"re{odd}:t", odd), (f"re{odd}:t", f"{odd}x"), ("rea:t", "a"), THUMB]
    reactions = crowd(size, *tallies)
    reactions.add(f"{odd}:u *", str(BEGAN + 7), tallies[0])
    await write(claimed, reactions)

    for tally in tallies:
        assert await everybody(reader, tally) == reactions.who(tally)


@pytest.mark.parametrize("is_decoded", [True, False])
@pytest.mark.parametrize("protocol", [2, 3])
@pytest.mark.parametrize("size", SIZES)
async def test_any_client_of_redis_py_will_do(
    claimed: Redis, valkey: RedisServer, is_decoded: bool, protocol: int, size: int
) -> None:
    """It decodes responses, or not."""
    reactions = crowd(size)
    await write(claimed, reactions)
    options: Any = {"decode_responses": is_decoded, "protocol": protocol}

    async with Redis.from_url(valkey.url, **options) as client:
        assert await everybody(AsyncTallyReader(client), limit=50) == reactions.who()
    with BlockingRedis.from_url(valkey.url, **options) as client_of_threads:
        reader = InThread(TallyReader(client_of_threads))
        assert await everybody(reader, limit=50) == reactions.who()


@pytest.mark.parametrize("size", SIZES)
async def test_who_may_only_read_reads_who(claimed: Redis, valkey: RedisServer, size: int) -> None:
    """Without scripts. Who may not read is told so."""
    reactions = crowd(size)
    await write(claimed, reactions)
    client = cast("Any", claimed)
    rules = ("reset", "on", ">secret", "~tally:*", "+@read", "+multi", "+exec")
    await client.execute_command("ACL", "SETUSER", "reading", *rules)
    url = valkey.url.replace("redis://", "redis://reading:secret@")

    async with AsyncTallyReader.from_url(url) as reader:
        assert await everybody(reader) == reactions.who()
        await client.execute_command("ACL", "SETUSER", "reading", "-zcard")
        with pytest.raises(NotPermittedError):
            await who(reader)
    await client.execute_command("ACL", "DELUSER", "reading")


@pytest.mark.parametrize("size", SIZES)
async def test_a_who_key_of_another_type_is_not_believed(
    claimed: Redis, reader: Any, size: int
) -> None:
    """The actions are read."""
    reactions = crowd(size)
    await write(claimed, reactions)
    await claimed.delete(who_key())
    await claimed.set(who_key(), "not ours")

    assert await everybody(reader, limit=1_000) == reactions.who()


def test_a_page_is_read_at_one_instant() -> None:
    """A change between its commands could show a user twice, or not at all."""
    query = who_of(CHANNEL, MESSAGE, *THUMB, 50, None)
    operation = read_who(Operations("tally", "Redis"), query)
    assert next(operation).is_atomic
    operation.send([b"500", 7, [], [b"5", []]])  # the schema is asked for

    assert operation.send([b"1"]).is_atomic  # all actions: the set has another size


@pytest.mark.parametrize("kind", ["counts", "actions"])
async def test_a_key_of_another_type_is_an_error(claimed: Redis, reader: Any, kind: str) -> None:
    """The worker never writes it."""
    await write(claimed, crowd(RANKED_ABOVE + 1))
    counts, actions, _ = KEYS.message(CHANNEL, MESSAGE)
    key = {"counts": counts, "actions": actions}[kind]
    await claimed.delete(key)
    await claimed.set(key, "not ours")

    with pytest.raises(TallyReadError, match="WRONGTYPE"):
        await who(reader)


async def test_who_is_never_empty_by_mistake(real_redis: Redis, valkey: RedisServer) -> None:
    """Another Redis is an error."""
    async with AsyncTallyReader.from_url(valkey.url) as reader:
        with pytest.raises(NotTheseTalliesError):
            await who(reader)


@pytest.mark.parametrize("after", ["", "ana", ":ana", "1.5:ana", "-1:ana", "١:ana"])
async def test_a_malformed_after_is_named(reader: Any, after: str) -> None:
    """Another one would begin somewhere."""
    with pytest.raises(ValueError, match=f"after is .* not {after!r}"):
        await who(reader, after=after)


async def test_arguments_are_checked(reader: Any) -> None:
    """Each by its name."""
    for limit in (0, 1_001):
        with pytest.raises(ValueError, match="a limit is"):
            await who(reader, limit=limit)
    with pytest.raises(TypeError, match="after is text"):
        await who(reader, after=5)
    with pytest.raises(TypeError, match="a value is text"):
        await reader.who(CHANNEL, MESSAGE, "reaction", None)
    with pytest.raises(TypeError, match="a type is text"):
        await reader.who(CHANNEL, MESSAGE, None, "👍")
