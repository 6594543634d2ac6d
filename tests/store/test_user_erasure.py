"""What is kept of a user is deleted, and the counts are exact without them."""

import json
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from time import process_time
from typing import Any, Final, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.asyncio import Redis

from reaction_tally.keys import Keys, tally_field
from tests.histories import BEN, CHANNEL, MESSAGE, added, at, events, removed
from tests.mentions import mentions
from tests.ranked import ranked_above
from tests.store.examples import ON_A_REAL_SERVER, apply, counted_calls
from tests.store.journal_follower import JournalFollower
from worker.domain.action import Event, Identity, Origin
from worker.errors import DamagedKeyError
from worker.reading.explain import trace
from worker.store import user_data, user_erasure
from worker.store.audit import Audit
from worker.store.journal import Journal
from worker.store.snapshot import read_snapshot
from worker.store.store import Store
from worker.store.tables import PAYLOAD_CHARACTERS, Tables
from worker.store.user_data import UserData
from worker.store.user_erasure import Deleted, UserErasure
from worker.store.user_streams import Names

KEYS: Final = Keys()
COUNTS: Final = KEYS.counts(CHANNEL, MESSAGE)
ACTIONS: Final = KEYS.actions(CHANNEL, MESSAGE)
FIELD: Final = "reaction:👍"
FEW: Final = 3
LONGEST_SECONDS: Final = 2.0
"""Of computing: many times what it takes, and a small part of what it took."""
HOSTILE: Final = (
    "*",
    "?",
    ":",
    "a:b:c",
    "%",
    "%3A",
    "[a]",
    "[^a]",
    "\\",
    "\\*",
    "^",
    "line\nbreak",
    "\x00",
    "{room}",
    "😀👍",
    "0123456789" * 9 + "ab",
    " ",
    "after",
)


@pytest.fixture
def few_are_ranked() -> Iterator[None]:
    """Rank messages with more than three actions."""
    with ranked_above(FEW):
        yield


async def erase(redis: Redis, *uuids: str) -> Deleted:
    """Delete what is kept of users, once."""
    data, erasure = UserData(redis, KEYS, uuids), UserErasure(redis, KEYS, 86_400)
    deleted = Deleted()
    async for traces in data.traces():
        part = await erasure.erase(traces)
        deleted.actions += part.actions
        deleted.tombstones += part.tombstones
    async for channel, entries in data.entries():
        await erasure.delete_entries(channel, entries)
    async for letters in data.letters():
        await erasure.delete_letters(letters)
    return deleted


async def held(redis: Redis) -> dict[str, dict[str, str]]:
    """Return every hash of messages."""
    commands = cast("Any", redis)
    keys = [key for key in await commands.keys() if ":counts:" in key or ":actions:" in key]
    return {key: await commands.hgetall(key) for key in keys}


def of(uuid: str, value: str = "👍", type: str = "reaction") -> Identity:
    """Return a reaction of a user."""
    return Identity(CHANNEL, MESSAGE, type, value, uuid)


async def test_counts_are_exact_without_the_user(redis: Redis) -> None:
    """A follower of the journal that has read everything needs no new snapshot."""
    store = Store(redis, KEYS)
    await apply(store, [added(1), added(2, BEN), added(3, of("ana", "🎉"))])
    await apply(store, [removed(3, of("ana", "❤"))])
    follower = JournalFollower(redis, CHANNEL)
    await follower.catch_up()

    assert await erase(redis, "ana") == Deleted(actions=2, tombstones=1)

    assert await held(redis) == {COUNTS: {FIELD: "1"}, ACTIONS: {f"{FIELD}:ben": at(2)}}
    assert await Audit(redis, KEYS).channels([CHANNEL]) == []
    ((_, entry),) = await cast("Any", redis).xrange(KEYS.journal(CHANNEL))
    assert entry["origin"] == "reconcile"
    assert [entry["0"], entry["1"]] == [
        f"rebuilt applied {MESSAGE} 0 {MESSAGE} reaction:🎉:",
        f"rebuilt applied {MESSAGE} 1 {MESSAGE} {FIELD}:",
    ]
    await follower.catch_up()
    assert follower.snapshots == 1
    assert follower.tallies == {MESSAGE: {FIELD: 1}}
    assert await mentions(redis, "ana") == set()


async def test_nothing_is_written_for_somebody_unknown(redis: Redis) -> None:
    """Whose name is only the end, or the beginning, of another one."""
    await apply(Store(redis, KEYS), [added(1, of("x:ana")), added(1, of("ana:x"))])
    before = await held(redis)

    assert await erase(redis, "ana", "x", "👍:x:ana") == Deleted()

    assert await held(redis) == before
    assert await cast("Any", redis).xlen(KEYS.journal(CHANNEL)) == 1


@pytest.mark.parametrize("uuid", HOSTILE)
async def test_no_name_stands_for_another_one(redis: Redis, uuid: str) -> None:
    """A name may be a pattern, or have what separates the parts of a field."""
    others = ["ana", "a", "b:c", "3A", "x" + uuid, uuid + "x", f"x:{uuid}"]
    values = ["👍", "a:b%3A{c}\n", ""]
    theirs = [added(1, of(name, value)) for name in others for value in values]
    mine = [added(2, of(uuid, value)) for value in values]
    store = Store(redis, KEYS)
    await apply(store, theirs)
    right = await held(redis)
    await apply(store, mine)

    assert await erase(redis, uuid) == Deleted(actions=len(values))

    assert await held(redis) == right


@pytest.mark.parametrize("uuid", HOSTILE)
async def test_several_users_are_found_at_once(redis: Redis, uuid: str) -> None:
    """No pattern is used then."""
    store = Store(redis, KEYS)
    await apply(store, [added(1), added(1, BEN), added(1, of(uuid))])

    assert await erase(redis, uuid, "ana") == Deleted(actions=2)

    assert await cast("Any", redis).hgetall(ACTIONS) == {f"{FIELD}:ben": at(1)}


@pytest.mark.usefixtures("few_are_ranked")
@pytest.mark.parametrize("others", [1, FEW - 1, FEW, FEW + 1, FEW + 5])
async def test_who_keys_are_right_afterwards(real_redis: Redis, others: int) -> None:
    """A message that is no longer ranked loses all of them."""
    store = Store(real_redis, KEYS)
    await apply(store, [added(1, of(f"user-{n}", "🎉")) for n in range(others)])
    await apply(store, [added(1), added(1, of("ana", "🎉")), added(1, of("ana", "a:b%"))])

    assert await erase(real_redis, "ana") == Deleted(actions=3)

    assert await Audit(real_redis, KEYS).channels([CHANNEL]) == []
    who = await cast("Any", real_redis).keys("*:who:*")
    expected = {KEYS.who(CHANNEL, MESSAGE, tally_field("reaction", "🎉"))}
    assert set(who) == (expected if others > FEW else set())
    assert await mentions(real_redis, "ana") == set()


@pytest.mark.usefixtures("few_are_ranked")
async def test_a_who_key_that_an_eviction_left_is_cleaned(real_redis: Redis) -> None:
    """Its message has lost its actions. Nothing else tells of the user."""
    commands = cast("Any", real_redis)
    crowd = [added(1, of(f"user-{n}")) for n in range(FEW)]
    await apply(Store(real_redis, KEYS), [*crowd, added(1)])
    await commands.delete(ACTIONS)

    await erase(real_redis, "ana")

    who = KEYS.who(CHANNEL, MESSAGE, FIELD)
    assert len(await commands.zrange(who, 0, -1)) == FEW
    assert await mentions(real_redis, "ana") == set()


async def test_many_fields_take_several_calls(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No call writes more than a batch."""
    monkeypatch.setattr(user_erasure, "MAX_BATCH", 10)
    monkeypatch.setattr(user_data, "FIELDS_AT_ONCE", 7)
    store = Store(redis, KEYS)
    await apply(store, [added(1, BEN)])
    right = await held(redis)
    await apply(store, [added(1, of("ana", f"v{n}")) for n in range(25)])

    deleted = await erase(redis, "ana")

    assert deleted == Deleted(actions=25)
    assert await held(redis) == right


async def test_a_wrong_count_of_the_tally_is_mended_too(redis: Redis) -> None:
    """It is counted anew, not counted down."""
    store = Store(redis, KEYS)
    await apply(store, [added(1), added(2, BEN)])
    await cast("Any", redis).hset(COUNTS, FIELD, "7")

    await erase(redis, "ana")

    assert await cast("Any", redis).hgetall(COUNTS) == {FIELD: "1"}


@pytest.mark.parametrize("kind", ["counts", "journal", "removed", "actions", "head"])
async def test_a_key_of_the_wrong_type_changes_nothing(redis: Redis, kind: str) -> None:
    """Everything is read before the first write."""
    commands = cast("Any", redis)
    await apply(Store(redis, KEYS), [added(1), added(2, BEN)])
    key = {
        "counts": COUNTS,
        "journal": KEYS.journal(CHANNEL),
        "removed": KEYS.removed(CHANNEL, MESSAGE),
        "actions": ACTIONS,
        "head": KEYS.head(CHANNEL),
    }[kind]
    await commands.delete(key)
    await commands.rpush(key, "not ours")
    await commands.expire(key, 60)
    before = await commands.hgetall(COUNTS if kind == "actions" else ACTIONS)

    with pytest.raises(Exception, match=r"WRONGTYPE|has another type"):
        await erase(redis, "ana")

    assert await commands.hgetall(COUNTS if kind == "actions" else ACTIONS) == before


async def test_a_damaged_key_is_named(redis: Redis) -> None:
    """With what to type: the command is then typed again."""
    commands = cast("Any", redis)
    await commands.set(ACTIONS, "not ours")

    with pytest.raises(DamagedKeyError, match="redis-cli DEL"):
        await erase(redis, "ana")


async def test_entries_that_name_the_user_are_deleted(redis: Redis) -> None:
    """Others stay. A follower in between takes a new snapshot."""
    store = Store(redis, KEYS)
    await apply(store, [added(1, BEN)])
    follower = JournalFollower(redis, CHANNEL)
    await follower.catch_up()
    await apply(store, [added(1)])
    await apply(store, [added(2, of("carl"))])

    await erase(redis, "ana")

    entries = await cast("Any", redis).xrange(KEYS.journal(CHANNEL))
    assert [entry["0"].rpartition(":")[2] for _, entry in entries] == ["ben", "carl", ""]
    await follower.catch_up()
    assert follower.snapshots == 2
    assert follower.tallies == {MESSAGE: {FIELD: 2}}


async def test_a_newest_entry_that_is_deleted_is_no_lost_one(redis: Redis) -> None:
    """Redis did not go back. A follower in front of it takes a new snapshot."""
    store = Store(redis, KEYS)
    await apply(store, [added(1, BEN)])
    follower = JournalFollower(redis, CHANNEL)
    await follower.catch_up()
    await apply(store, [added(1)])
    applied = await apply(store, [removed(1)])
    heads = Tables(redis, KEYS).heads
    await cast("Any", redis).delete(KEYS.removed(CHANNEL, MESSAGE))

    assert await erase(redis, "ana") == Deleted()

    assert len(await cast("Any", redis).xrange(KEYS.journal(CHANNEL))) == 1
    assert await heads.lost({CHANNEL: applied.head_after}.items()) == set()
    await follower.catch_up()
    assert (follower.snapshots, follower.tallies) == (2, {MESSAGE: {FIELD: 1}})
    await apply(store, [added(3, of("carl"))])
    assert await heads.lost({CHANNEL: applied.head_after}.items()) == set()


async def test_explain_says_that_changes_are_missing(redis: Redis) -> None:
    """The journal is no longer whole."""
    await apply(Store(redis, KEYS), [added(1, BEN)])
    await apply(Store(redis, KEYS), [added(1)])
    present = await read_snapshot(redis, KEYS, CHANNEL, MESSAGE)
    assert (await trace(Journal(redis, KEYS), CHANNEL, MESSAGE, present)).is_whole

    await erase(redis, "ana")

    present = await read_snapshot(redis, KEYS, CHANNEL, MESSAGE)
    explained = await trace(Journal(redis, KEYS), CHANNEL, MESSAGE, present)
    assert not explained.is_whole
    assert explained.ends_well


@pytest.mark.parametrize("uuid", ["ana", "\ud800", 'qu"ote\\', "новый", *HOSTILE])
async def test_letters_of_the_user_are_deleted(redis: Redis, uuid: str) -> None:
    """Wherever the name stands, and if it is cut. Lone surrogates are never counted."""
    letters = Tables(redis, KEYS).dead_letters
    name = json.dumps(uuid)
    await letters.add("room", "value is missing", f'{{"i": {name}, "e": 3}}')
    cut = ("x" * PAYLOAD_CHARACTERS + name)[len(name) - 1 : -1]
    await letters.add("room", "value is missing", cut)
    await letters.add("room", "value is missing", '{"i": "somebody else"}')

    await erase(redis, uuid)

    left = await cast("Any", redis).xrange(KEYS.quarantine)
    assert [letter["payload"] for _, letter in left] == ['{"i": "somebody else"}']


def test_a_list_of_users_may_be_long() -> None:
    """What a payload that is cut costs does not grow with the list: it was minutes."""
    names = Names([f"user-{number:06}" for number in range(50_000)] + ["x" * PAYLOAD_CHARACTERS])
    payload = '{"i": "' + "y" * PAYLOAD_CHARACTERS
    began = process_time()

    for _ in range(200):
        assert not names.are_in({"payload": payload[:PAYLOAD_CHARACTERS]})
    took = process_time() - began

    assert took < LONGEST_SECONDS
    assert names.are_in({"payload": payload[: PAYLOAD_CHARACTERS - 4] + '"use'})


async def test_few_members_of_sets_are_asked_about_at_once(
    real_redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each set is asked about every user: of a long list that took a gigabyte."""
    with ranked_above(1):
        values = ["👍", "🎉", "❤"]
        two = [added(1, of(uuid, value)) for value in values for uuid in ("ana", "ben")]
        await apply(Store(real_redis, KEYS), two)
    monkeypatch.setattr(user_data, "MEMBERS_AT_ONCE", 4)
    sizes: list[int] = []
    pipeline: Any = real_redis.pipeline

    def counted(**options: Any) -> Any:
        made: Any = pipeline(**options)
        execute = made.execute

        async def run(**more: Any) -> Any:
            commands = [args for args, _ in made.command_stack if args[0] == "ZMSCORE"]
            sizes.append(sum(len(args) - 2 for args in commands))
            return await execute(**more)

        made.execute = run
        return made

    monkeypatch.setattr(real_redis, "pipeline", counted)
    assert await erase(real_redis, "ana", "carl") == Deleted(actions=3)

    assert max(sizes) == 4
    assert await mentions(real_redis, "ana") == set()


async def test_a_type_that_looks_like_the_end_of_a_channel_is_no_journal(
    real_redis: Redis,
) -> None:
    """Its who key matches the pattern of journals."""
    with ranked_above(1):
        await apply(
            Store(real_redis, KEYS),
            [added(1, of(name, "journal", "}")) for name in ("ana", "ben", "carl")],
        )
        assert await erase(real_redis, "ana") == Deleted(actions=1)

    assert await mentions(real_redis, "ana") == set()


async def test_a_second_call_changes_nothing(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    """An interrupted command is typed again."""
    await apply(Store(redis, KEYS), [added(1), added(1, BEN)])
    await erase(redis, "ana")
    before = await held(redis)
    calls = counted_calls(redis, monkeypatch)

    assert await erase(redis, "ana") == Deleted()

    assert (await held(redis), calls) == (before, [])


@asynccontextmanager
async def compared(redis: Redis, *, few: bool) -> AsyncIterator[Store]:
    """Yield a store on an empty Redis; expect it consistent afterwards."""
    await redis.flushall()
    with ranked_above(1 if few else 128):
        yield Store(redis, KEYS)
        assert await Audit(redis, KEYS).channels([CHANNEL]) == []


@ON_A_REAL_SERVER
@given(
    st.lists(st.lists(events, min_size=1, max_size=12), min_size=1, max_size=6),
    st.integers(0, 6),
    st.booleans(),
)
async def test_any_history_ends_without_the_user(
    real_redis: Redis, batches: Sequence[Sequence[Event]], forgotten_after: int, few: bool
) -> None:
    """It ends as the same history without the user. A follower ends with the same counts."""
    async with compared(real_redis, few=few) as store:
        for batch in batches:
            others = [event for event in batch if event.identity.uuid != "ana"]
            if others:
                await apply(store, others)
        right = await held(real_redis)

    async with compared(real_redis, few=few) as store:
        follower = JournalFollower(real_redis, CHANNEL)
        await follower.catch_up()
        for number, batch in enumerate(batches):
            if number == forgotten_after:
                await erase(real_redis, "ana")
                await follower.catch_up()
            is_known = number < forgotten_after
            allowed = [event for event in batch if is_known or event.identity.uuid != "ana"]
            if allowed:
                await apply(store, allowed, origin=Origin.BACKFILL)
        await erase(real_redis, "ana")

        assert await held(real_redis) == right
        await follower.catch_up()
        copy = {message: counts for message, counts in follower.tallies.items() if counts}
        assert copy == {
            key.rpartition(":")[2]: {tally: int(count) for tally, count in fields.items()}
            for key, fields in right.items()
            if ":counts:" in key
        }
        assert await mentions(real_redis, "ana") == set()
