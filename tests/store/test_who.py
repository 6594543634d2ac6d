"""Messages with many actions have a sorted set for each tally: who reacted, oldest first."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.asyncio import Redis

from reaction_tally.keys import RANKED_ABOVE, WHO_EPOCH, Keys, read_action_field, tally_field
from tests.histories import CHANNEL, MESSAGE, events
from tests.ranked import ranked_above
from tests.store.examples import ON_A_REAL_SERVER, apply, counted_calls
from worker.domain.action import Added, Event, Identity, Origin, Removed
from worker.domain.position import Cursor
from worker.store.apply_script import Ttls
from worker.store.audit import Audit
from worker.store.batch import MAX_BATCH
from worker.store.ranking import RankedMessages
from worker.store.script_call import Batch, CursorSave, ScriptCall
from worker.store.scripts import call_script
from worker.store.store import Applied, Store

KEYS: Final = Keys()
FIRST: Final = 17_600_000_100_000_000
VALUES: Final = ("👍", "a:b%3A{c}\n", "")
FEW: Final = 3

Users = dict[str, dict[str, float]]
"""Who key → user → score."""


@pytest.fixture
def few_are_ranked() -> Iterator[None]:
    """Rank messages with more than three actions."""
    with ranked_above(FEW):
        yield


def reaction(number: int, message: str = MESSAGE) -> Added:
    """Return the addition of a user of its own."""
    value = VALUES[number % len(VALUES)]
    at = str(FIRST + number)
    return Added(Identity(CHANNEL, message, "re:act", value, f"u:{number}"), at, at)


def crowd(count: int, first: int = 0) -> list[Event]:
    """Return so many additions."""
    return [reaction(number) for number in range(first, first + count)]


def taken_back(added: Event) -> Removed:
    """Return the removal of an addition."""
    at = cast("Added", added).action_timetoken
    return Removed(added.identity, at, str(int(at) + 1))


async def users(redis: Redis) -> Users:
    """Return what all who keys hold."""
    commands = cast("Any", redis)
    keys = [key async for key in redis.scan_iter("tally:{*}:who:*")]
    return {key: dict(await commands.zrange(key, 0, -1, withscores=True)) for key in keys}


async def expected(redis: Redis, most: int, messages: Sequence[str] = (MESSAGE,)) -> Users:
    """Return what all who keys must hold: what the actions say."""
    found: defaultdict[str, dict[str, float]] = defaultdict(dict)
    for message in messages:
        actions = await cast("Any", redis).hgetall(KEYS.actions(CHANNEL, message))
        for field, at in actions.items() if len(actions) > most else ():
            type, value, user = read_action_field(field)
            key = KEYS.who(CHANNEL, message, tally_field(type, value))
            found[key][user] = float(int(at) - WHO_EPOCH)
    return dict(found)


@ON_A_REAL_SERVER
@given(batches=st.lists(st.lists(events, min_size=1, max_size=12), max_size=12))
async def test_who_is_what_the_actions_say_at_every_instant(
    real_redis: Redis, batches: list[list[Event]]
) -> None:
    """Whatever happens to a message, in whatever batches: it grows, shrinks, and grows again."""
    await real_redis.flushall()
    with ranked_above(FEW):
        # Two workers follow the channel. Neither knows what the other has ranked.
        stores = Store(real_redis, KEYS), Store(real_redis, KEYS)
        for number, batch in enumerate(batches):
            await apply(stores[number % 2], batch)

            assert await users(real_redis) == await expected(
                real_redis, FEW, [MESSAGE, "1234567890"]
            )
        assert await Audit(real_redis, KEYS).channels([CHANNEL]) == []


async def test_a_message_is_ranked_above_128_actions(redis: Redis) -> None:
    """One action less, and its keys are gone."""
    store = Store(redis, KEYS)
    await apply(store, crowd(RANKED_ABOVE))
    assert await users(redis) == {}

    await apply(store, crowd(1, RANKED_ABOVE))
    assert len(await users(redis)) == len(VALUES)
    assert await users(redis) == await expected(redis, RANKED_ABOVE)

    await apply(store, [taken_back(reaction(7))])
    assert await users(redis) == {}


async def test_scores_are_exact(redis: Redis) -> None:
    """17 digits do not fit a double, and a Lua number is one."""
    await apply(Store(redis, KEYS), crowd(RANKED_ABOVE + 2))

    key = KEYS.who(CHANNEL, MESSAGE, tally_field("re:act", VALUES[0]))
    script = "return redis.call('ZRANGE', KEYS[1], 0, 1, 'WITHSCORES')"
    held = await cast("Any", redis).eval(script, 1, key)

    assert held == ["u:0", str(FIRST - WHO_EPOCH), "u:3", str(FIRST - WHO_EPOCH + 3)]


async def test_a_whole_batch_about_one_message_is_ranked_by_two_calls(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first one asks for keys. Later calls about this message have them at once."""
    calls = counted_calls(redis, monkeypatch)
    store = Store(redis, KEYS)
    await apply(store, crowd(1))  # loads the script
    calls.clear()

    await apply(store, crowd(MAX_BATCH, 1))
    assert len(calls) == 2
    await apply(store, crowd(MAX_BATCH, MAX_BATCH + 1))
    assert len(calls) == 3

    assert await users(redis) == await expected(redis, RANKED_ABOVE)


@pytest.mark.usefixtures("few_are_ranked")
async def test_only_a_message_that_becomes_ranked_takes_a_second_call(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Small ones need no keys, and those of a known one are sent at once."""
    calls = counted_calls(redis, monkeypatch)
    store = Store(redis, KEYS)
    likes: list[Event] = [reaction(len(VALUES) * number) for number in range(2 * FEW)]
    await apply(store, likes[:1])  # loads the script
    batches: list[list[Event]] = [
        likes[1:FEW],
        [taken_back(likes[0])],
        likes[FEW : FEW + 1],
        likes[FEW + 1 :],
        [taken_back(likes[1])],
    ]

    counts = []
    for batch in batches:
        calls.clear()
        await apply(store, batch)
        counts.append(len(calls))

    assert counts == [1, 1, 1, 2, 1]
    assert await users(redis) == await expected(redis, FEW)


@pytest.mark.usefixtures("few_are_ranked")
async def test_one_batch_adds_and_removes_while_a_message_becomes_ranked(redis: Redis) -> None:
    """What was there, what comes, and what goes."""
    store = Store(redis, KEYS)
    await apply(store, crowd(FEW))

    await apply(store, [taken_back(reaction(0)), taken_back(reaction(1)), *crowd(3, FEW)])

    assert await users(redis) == await expected(redis, FEW)
    assert sum(map(len, (await users(redis)).values())) == FEW + 1


@pytest.mark.usefixtures("few_are_ranked")
async def test_short_timetokens_and_empty_names_are_ranked(redis: Redis) -> None:
    """PubNub's have 17 digits, and a type has a name. Nothing relies on either."""
    identities = [Identity(CHANNEL, MESSAGE, "", "", f"{n}") for n in range(FEW + 1)]
    times = ["7", "123456789", "1234567890", str(FIRST)]

    await apply(Store(redis, KEYS), list(map(Added, identities, times, times)))

    assert await users(redis) == await expected(redis, FEW)


@pytest.mark.usefixtures("few_are_ranked")
@pytest.mark.parametrize("field", ["stray", "re:stray", ":", "re:act:nobody"])
async def test_a_field_of_nobody_is_not_ranked(redis: Redis, field: str) -> None:
    """A hand wrote it. It refuses no event, and stands in no set."""
    store, commands = Store(redis, KEYS), cast("Any", redis)
    await apply(store, crowd(FEW - 1))
    await commands.hset(KEYS.actions(CHANNEL, MESSAGE), field, "no time")

    await apply(store, crowd(3, FEW - 1))
    await commands.hdel(KEYS.actions(CHANNEL, MESSAGE), field)

    assert await users(redis) == await expected(redis, FEW)


@pytest.mark.usefixtures("few_are_ranked")
@pytest.mark.parametrize("is_set", [True, False])
async def test_what_an_eviction_left_is_deleted(redis: Redis, is_set: bool) -> None:
    """When the message becomes ranked again: of tallies that it has, and of new ones."""
    store, commands = Store(redis, KEYS), cast("Any", redis)
    await apply(store, crowd(FEW))
    for value in (VALUES[0], "new"):
        key = KEYS.who(CHANNEL, MESSAGE, tally_field("re:act", value))
        await (commands.zadd(key, {"stale": 5}) if is_set else commands.set(key, "not ours"))
    new = Identity(CHANNEL, MESSAGE, "re:act", "new", "ana")

    await apply(store, [*crowd(1, FEW), Added(new, str(FIRST), str(FIRST))])

    assert await users(redis) == await expected(redis, FEW)


@pytest.mark.usefixtures("few_are_ranked")
async def test_a_message_that_needs_keys_delays_no_other_channel(redis: Redis) -> None:
    """What the first call did is not done again. Only the cursor is left to its own call."""
    store, save = Store(redis, KEYS), CursorSave("s", Cursor("1", 1))
    await apply(store, crowd(FEW))
    hall = Identity("hall", MESSAGE, "reaction", "👍", "ana")
    at = str(FIRST)
    batches: list[Batch] = [("hall", [Added(hall, at, at)]), (CHANNEL, crowd(2, FEW))]

    results, saved = await store.apply_all(batches, Origin.LIVE, [save])

    assert [cast("Applied", result).letters for result in results] == ["a", "aa"]
    assert saved == []
    assert await users(redis) == await expected(redis, FEW)


@pytest.mark.usefixtures("few_are_ranked")
async def test_a_call_that_needs_keys_writes_nothing(redis: Redis) -> None:
    """It answers which ones, and the next call has them."""
    await apply(Store(redis, KEYS), crowd(FEW))
    before = await dump(redis)
    options = (Origin.LIVE.value, 3600, 86400, 0, FEW, 0)
    call = ScriptCall(KEYS, options, [(CHANNEL, crowd(1, FEW))], [])

    ((answer,),) = await call_script(redis, "apply", (call.keys, call.args))

    tallies = [tally_field("re:act", value) for value in VALUES]
    assert answer[0] == ""
    assert set(answer[1]) == {KEYS.who(CHANNEL, MESSAGE, tally) for tally in tallies}
    assert await dump(redis) == before


async def dump(redis: Redis) -> dict[str, Any]:
    """Return every key, as it is."""
    commands = cast("Any", redis)
    return {key: await commands.dump(key) for key in await commands.keys("*")}


@pytest.mark.usefixtures("few_are_ranked")
@pytest.mark.parametrize("damage", ["gone", "partial", "stale", "of another type"])
async def test_a_rebuild_makes_who_what_the_actions_say(redis: Redis, damage: str) -> None:
    """An older worker never wrote it; eviction deletes it; a hand changes it. No count changes."""
    store = Store(redis, KEYS)
    await apply(store, crowd(9))
    key = KEYS.who(CHANNEL, MESSAGE, tally_field("re:act", VALUES[0]))
    commands = cast("Any", redis)
    head = await commands.get(KEYS.head(CHANNEL))
    match damage:
        case "gone":
            await commands.delete(key)
        case "partial":
            await commands.zrem(key, "u:3")
        case "stale":
            await commands.zadd(key, {"somebody": 5})
        case _:
            await commands.set(key, "not ours")

    assert await store.rebuild(CHANNEL, [MESSAGE]) == 0

    assert await users(redis) == await expected(redis, FEW)
    assert await commands.get(KEYS.head(CHANNEL)) == head


@pytest.mark.usefixtures("few_are_ranked")
async def test_a_rebuild_leaves_a_set_of_the_right_size(redis: Redis) -> None:
    """To compare every user would take too long. An audit does, and names the key."""
    store, commands = Store(redis, KEYS), cast("Any", redis)
    await apply(store, crowd(9))
    key = KEYS.who(CHANNEL, MESSAGE, tally_field("re:act", VALUES[0]))
    await commands.zrem(key, "u:3")
    await commands.zadd(key, {"somebody": 5})
    before = await users(redis)

    await store.rebuild(CHANNEL, [MESSAGE])

    assert await users(redis) == before


@pytest.mark.usefixtures("few_are_ranked")
async def test_one_missing_key_is_written_anew(redis: Redis) -> None:
    """Of one value, whose timetokens are shorter than PubNub's."""
    identities = [Identity(CHANNEL, MESSAGE, "vote", "a:b", f"{n}") for n in range(FEW + 1)]
    times = ["7", "123456789", "1234567890", str(FIRST)]
    store = Store(redis, KEYS)
    await apply(store, list(map(Added, identities, times, times)))
    await cast("Any", redis).delete(KEYS.who(CHANNEL, MESSAGE, "vote:a:b"))

    await store.rebuild(CHANNEL, [MESSAGE])

    assert await users(redis) == await expected(redis, FEW)


@pytest.mark.usefixtures("few_are_ranked")
async def test_a_message_of_an_older_worker_is_ranked_by_a_rebuild(redis: Redis) -> None:
    """Its actions are there, and no who key."""
    with ranked_above(RANKED_ABOVE):
        store = Store(redis, KEYS)
        await apply(store, crowd(9))
    assert await users(redis) == {}

    await store.rebuild(CHANNEL, [MESSAGE])

    assert await users(redis) == await expected(redis, FEW)


@pytest.mark.usefixtures("few_are_ranked")
async def test_a_who_key_of_another_type_refuses_no_event(redis: Redis) -> None:
    """It is derived, so the script writes it anew."""
    store = Store(redis, KEYS)
    await apply(store, crowd(9))
    key = KEYS.who(CHANNEL, MESSAGE, tally_field("re:act", VALUES[0]))
    await cast("Any", redis).set(key, "not ours")

    result = await apply(store, [reaction(9), taken_back(reaction(3))])

    assert result.letters == "aa"
    assert (await users(redis))[key] == {"u:9": float(FIRST + 9 - WHO_EPOCH)}


@pytest.mark.usefixtures("few_are_ranked")
async def test_an_audit_finds_what_would_mislead_a_reader(redis: Redis) -> None:
    """Readers see that a key of another size is wrong, and read the actions."""
    await apply(Store(redis, KEYS), crowd(9))
    tally = tally_field("re:act", VALUES[0])
    commands, key = cast("Any", redis), KEYS.who(CHANNEL, MESSAGE, tally)
    audit = Audit(redis, KEYS)

    await commands.zrem(key, "u:3")
    assert await audit.channels([CHANNEL]) == []
    await commands.zadd(key, {"somebody": 5})
    (found,) = await audit.channels([CHANNEL])

    assert (found.message_timetoken, found.field) == (MESSAGE, tally)


@pytest.mark.usefixtures("few_are_ranked")
@pytest.mark.parametrize("kind", [KEYS.counts, KEYS.actions])
@pytest.mark.parametrize("is_rebuilt", [True, False])
async def test_who_goes_though_what_it_comes_from_is_evicted(
    redis: Redis, kind: Callable[[str, str], str], is_rebuilt: bool
) -> None:
    """It holds user ids: nothing is left of them when the channel is forgotten."""
    store = Store(redis, KEYS)
    await apply(store, crowd(9))
    await cast("Any", redis).delete(kind(CHANNEL, MESSAGE))

    if is_rebuilt:
        await store.rebuild(CHANNEL, [MESSAGE])
        assert await users(redis) == await expected(redis, FEW)
    await store.clear(CHANNEL)

    assert await users(redis) == {}


@pytest.mark.usefixtures("few_are_ranked")
async def test_many_who_keys_go_in_several_calls(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Redis does nothing else meanwhile, so a call has a thousand of them, and some more."""
    store = Store(redis, KEYS)
    messages = [str(int(MESSAGE) + number) for number in range(12)]
    for message in messages:
        votes = [
            Identity(CHANNEL, message, "vote", str(number), "ana") for number in range(MAX_BATCH)
        ]
        await apply(store, [Added(vote, str(FIRST), str(FIRST)) for vote in votes])
    calls = counted_calls(redis, monkeypatch)

    assert await store.clear(CHANNEL) == len(messages)

    assert await users(redis) == {}
    most = max(len(call) for call in calls)
    assert most < 1_000 + 2 * MAX_BATCH
    assert len(calls) >= len(messages) * MAX_BATCH / 1_250


async def test_a_large_tally_is_written_anew(redis: Redis) -> None:
    """In several commands: one has a limit of arguments."""
    store = Store(redis, KEYS)
    likes = [Identity(CHANNEL, MESSAGE, *("re:act", "👍"), f"u{number}") for number in range(2_500)]
    additions = [Added(like, str(FIRST + n), str(FIRST + n)) for n, like in enumerate(likes)]
    for start in range(0, len(likes), MAX_BATCH):
        await apply(store, additions[start : start + MAX_BATCH])
    before = await users(redis)
    await redis.delete(*before)

    await store.rebuild(CHANNEL, [MESSAGE])

    assert await users(redis) == before == await expected(redis, RANKED_ABOVE)


def test_some_ranked_messages_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that were met last."""
    monkeypatch.setattr("worker.store.ranking.MOST_KNOWN", 2)
    ranked = RankedMessages(KEYS)
    messages = ["1", "2", "3"]

    ranked.learn([KEYS.who(CHANNEL, message, "re:act") for message in messages])

    events = [reaction(0, message) for message in messages]
    tally = tally_field("re:act", VALUES[0])
    expected = {KEYS.who(CHANNEL, message, tally) for message in ("2", "3")}
    assert ranked.keys_of([(CHANNEL, events)]) == expected


@pytest.mark.usefixtures("few_are_ranked")
async def test_scripts_touch_only_keys_that_they_were_given(real_redis: Redis) -> None:
    """A cluster, and an ACL, look at these."""
    async with real_redis.monitor() as monitor:
        for store in (Store(real_redis, KEYS), Store(real_redis, KEYS)):
            await apply(store, crowd(7))
            await apply(store, [taken_back(reaction(0)), reaction(8)])
            await apply(store, [taken_back(reaction(number)) for number in (*range(1, 7), 8)])
            await apply(store, crowd(9))
            await store.rebuild(CHANNEL, [MESSAGE])
            await store.clear(CHANNEL)
        await cast("Any", real_redis).echo("end")
        given: set[str] = set()
        touched = 0
        while (seen := await monitor.next_command())["command"] != "ECHO end":
            name, *words = seen["command"].split(" ")
            if name == "EVALSHA":
                given = set(words[2 : 2 + int(words[1])])
            elif seen["client_type"] == "lua" and name not in {"TIME", "PUBLISH"}:
                keys = words if name == "UNLINK" else words[:1]
                assert set(keys) <= given, seen["command"]
                touched += 1
    assert touched > 100


@pytest.mark.usefixtures("few_are_ranked")
@pytest.mark.parametrize("verb", ["sweep", "clear"])
async def test_who_goes_with_its_message(redis: Redis, verb: str) -> None:
    """When it expires, and when its channel is forgotten."""
    store = Store(redis, KEYS, Ttls(retention_seconds=1))
    other = [reaction(number, "17500000000000000") for number in range(5)]
    await apply(Store(redis, KEYS), [*crowd(9), *other])
    assert len(await users(redis)) == 2 * len(VALUES)

    assert await getattr(store, verb)(CHANNEL) == 2

    assert await users(redis) == {}
    assert await redis.zcard(KEYS.messages(CHANNEL)) == 0
