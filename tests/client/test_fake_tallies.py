"""``fake_tallies``: given counts in memory, for tests of applications."""

import asyncio
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from random import Random
from typing import Any, Final, cast

import fakeredis
import pytest
from redis.asyncio import Redis

from reaction_tally import RedisUnavailableError
from reaction_tally.keys import (
    RANKED_ABOVE,
    WHO_EPOCH,
    Keys,
    action_field,
    read_hint,
    tally_field,
)
from reaction_tally.testing import FakeTallies, ReactionRefusedError, fake_tallies
from tests.histories import CHANNEL, MESSAGE
from tests.ranked import ranked_above
from tests.store.examples import apply
from worker.domain.action import Added, Event, Identity, Removed
from worker.store.store import Store

KEYS: Final = Keys()
GIVEN: Final = {
    (CHANNEL, MESSAGE): {"reaction": {"👍": ["ana", "ben"]}, "receipt": {"read": ["cleo"]}},
    ("hall", 5): {"reaction": {"🎉": ["ana"]}},
}


@pytest.fixture
def tallies() -> Iterator[FakeTallies]:
    """Tallies as they are given."""
    with fake_tallies(GIVEN) as tallies:
        yield tallies


async def test_given_counts_are_read(tallies: FakeTallies) -> None:
    """By both readers, the users in the given order; a timetoken may be a number."""
    page = tallies.reader.page(CHANNEL, [MESSAGE, "7"], types=["reaction"], me="ben", names=1)

    (reaction,) = page.messages[MESSAGE].reactions
    assert (reaction.value, reaction.count, reaction.mine) == ("👍", 2, True)
    assert (reaction.names, reaction.more) == (("ana",), True)
    assert page.messages["7"].total == 0
    assert not page.in_doubt
    assert tallies.reader.get("hall", 5) == {"reaction": {"🎉": 1}}
    assert tallies.reader.channels() == {CHANNEL, "hall"}
    assert [each.timetoken for each in tallies.reader.recent(CHANNEL)] == [MESSAGE]
    tallies.reader.check()
    again = await tallies.async_reader.page(
        CHANNEL, [MESSAGE, "7"], types=["reaction"], me="ben", names=1
    )
    assert again == page


def test_users_react_and_change_their_minds(tallies: FakeTallies) -> None:
    """The position moves with each change. What PubNub would refuse is refused."""
    before = tallies.reader.page(CHANNEL, [MESSAGE])
    at = tallies.react(CHANNEL, MESSAGE, "🎉", "ben")
    tallies.remove(CHANNEL, MESSAGE, "👍", "ana")
    tallies.remove(CHANNEL, MESSAGE, "read", "cleo", type="receipt")

    page = tallies.reader.page(CHANNEL, [MESSAGE], me="ben")
    assert page.messages[MESSAGE].counts == {"reaction": {"👍": 1, "🎉": 1}}
    assert page.messages[MESSAGE].reactions[0].mine_at == at
    assert page.position != before.position
    with pytest.raises(ReactionRefusedError, match="already reaction '🎉' of 'ben'"):
        tallies.react(CHANNEL, MESSAGE, "🎉", "ben")
    with pytest.raises(ReactionRefusedError, match="no reaction '👍' of 'ana'"):
        tallies.remove(CHANNEL, MESSAGE, "👍", "ana")


def test_a_large_message_is_ranked(tallies: FakeTallies) -> None:
    """While it has more than 128 actions, each of its tallies has who reacted, as at a worker."""
    redis = cast("Any", tallies)._redis
    for number in range(RANKED_ABOVE - 3):
        tallies.react(CHANNEL, MESSAGE, "a:b", f"u{number}")
    assert not redis.keys("tally:{*}:who:*")

    tallies.react(CHANNEL, MESSAGE, "🎉", "ben")
    tallies.react(CHANNEL, MESSAGE, "a:b", "ana")
    assert_ranked(tallies, {"reaction": ["a:b", "👍", "🎉"], "receipt": ["read"]})
    tallies.remove(CHANNEL, MESSAGE, "🎉", "ben")
    assert_ranked(tallies, {"reaction": ["a:b", "👍"], "receipt": ["read"]})
    page = tallies.reader.page(CHANNEL, [MESSAGE], names=1)
    names = {it.value: it.names for it in page.messages[MESSAGE].reactions}
    assert names == {"a:b": ("u0",), "👍": ("ana",), "read": ("cleo",)}

    tallies.remove(CHANNEL, MESSAGE, "👍", "ben")
    assert not redis.keys("tally:{*}:who:*")
    assert tallies.reader.who(CHANNEL, MESSAGE, "reaction", "a:b").total == RANKED_ABOVE - 2


def test_a_large_message_may_be_in_any_channel() -> None:
    """One of its keys is made from another one, by a script that reads it."""
    users = [f"u{number}" for number in range(RANKED_ABOVE + 1)]
    odd = "a:actions:1}:actions:"
    with fake_tallies({(odd, MESSAGE): {"reaction": {"👍": users}}}) as tallies:
        page = tallies.reader.page(odd, [MESSAGE], names=2)
        (reaction,) = page.messages[MESSAGE].reactions

    assert reaction.names == ("u0", "u1")


def assert_ranked(tallies: FakeTallies, values: dict[str, list[str]]) -> None:
    """Expect a key of each value, and every user in it."""
    redis = cast("Any", tallies)._redis
    keys = set(redis.keys("tally:{*}:who:*"))
    expected = [(type, value) for type, each in values.items() for value in each]
    fields = {pair: tally_field(*pair) for pair in expected}
    assert keys == {KEYS.who(CHANNEL, MESSAGE, field) for field in fields.values()}
    actions = redis.hgetall(KEYS.actions(CHANNEL, MESSAGE))
    for (type, value), field in fields.items():
        scores = redis.zrange(KEYS.who(CHANNEL, MESSAGE, field), 0, -1, withscores=True)
        live = {user: int(score) + WHO_EPOCH for user, score in scores}
        prefix = action_field(type, value, "")
        times = {name: int(at) for name, at in actions.items() if name.startswith(prefix)}
        assert {prefix + user: at for user, at in live.items()} == times


async def test_changes_are_followed(tallies: FakeTallies) -> None:
    """By both readers, in this event loop and in another one."""
    changes = tallies.reader.changes()
    since = {CHANNEL: tallies.reader.page(CHANNEL, []).position}
    tallies.react(CHANNEL, MESSAGE, "🎉", "ben")

    async def follow() -> Any:
        async with aclosing(tallies.async_reader.changes([CHANNEL], since=since)) as follower:
            return await anext(follower)

    change: Any = await asyncio.to_thread(next, changes)
    changes.close()
    assert (change.value, change.count) == ("🎉", 1)
    assert await follow() == change
    assert await asyncio.to_thread(asyncio.run, follow()) == change


async def test_a_change_gives_a_hint(tallies: FakeTallies) -> None:
    """As the worker's scripts do."""
    odd = "a {room} %"
    with tallies._redis.pubsub() as subscription:
        subscription.subscribe(KEYS.hints)
        assert subscription.get_message(timeout=None)["type"] == "subscribe"
        tallies.react(odd, 5, "🎉", "ben")
        hint = subscription.get_message(timeout=None)["data"]

    assert read_hint(hint) == (odd, tallies.reader.page(odd, []).position)


async def test_an_application_meets_doubt_and_an_outage(tallies: FakeTallies) -> None:
    """Both end."""
    tallies.set_in_doubt(CHANNEL)
    assert tallies.reader.page(CHANNEL, [MESSAGE]).in_doubt
    assert await tallies.async_reader.in_doubt([CHANNEL, "hall"]) == {CHANNEL}
    tallies.set_in_doubt(CHANNEL, is_in_doubt=False)
    assert not tallies.reader.page(CHANNEL, [MESSAGE]).in_doubt

    assert cast("float", tallies.reader.heartbeat_age()) < 30
    tallies.set_heartbeat_age(90)
    assert 90 <= cast("float", await tallies.async_reader.heartbeat_age()) < 120
    tallies.set_heartbeat_age(None)
    assert tallies.reader.heartbeat_age() is None

    with tallies.outage():
        with pytest.raises(RedisUnavailableError):
            tallies.reader.page(CHANNEL, [MESSAGE])
        with pytest.raises(RedisUnavailableError):
            await tallies.async_reader.get(CHANNEL, MESSAGE)
    assert await tallies.async_reader.get("hall", 5) == tallies.reader.get("hall", 5)


def test_threads_and_event_loops_share_tallies(tallies: FakeTallies) -> None:
    """Reads and writes at once."""

    def write_and_read(number: int) -> int:
        tallies.react(CHANNEL, MESSAGE, "👍", f"u{number}")
        tallies.reader.page(CHANNEL, [MESSAGE], names=3)
        counts = asyncio.run(tallies.async_reader.get(CHANNEL, MESSAGE))
        return counts["reaction"]["👍"]

    with ThreadPoolExecutor(8) as threads:
        counts = list(threads.map(write_and_read, range(100)))
    assert max(counts) == 102
    assert tallies.reader.page(CHANNEL, [MESSAGE], me="u7").messages[MESSAGE].total == 103


def test_another_namespace_is_kept_apart() -> None:
    """As in the worker's settings."""
    with fake_tallies({("a{b}%", "7"): {"t": {"v": ["ana"]}}}, namespace="mine") as tallies:
        assert tallies.reader.get("a{b}%", "7") == {"t": {"v": 1}}
        keys = cast("Any", tallies)._redis.scan_iter()
        assert {key.partition(":")[0] for key in keys} == {"mine"}


class Journaled:
    """What fake tallies wrote, and what a worker writes after the same events."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.tallies = FakeTallies()
        self.events: list[Event] = []
        self._live: dict[Identity, str] = {}

    def act(self) -> None:
        """Let somebody react, or take a reaction back."""
        identity = Identity(
            CHANNEL,
            self.random.choice([MESSAGE, "5"]),
            self.random.choice(["reaction", "re:act%ion"]),
            self.random.choice(["👍", "a:b%3A{c}\n "]),
            self.random.choice(["ana", "u: 1"]),
        )
        words = (identity.value, identity.uuid, identity.type)
        place = (CHANNEL, identity.message_timetoken)
        timetoken = self._live.pop(identity, None)
        if timetoken:
            self.tallies.remove(*place, *words)
            now = str(cast("Any", self.tallies)._newest)
            self.events.append(Removed(identity, timetoken, now))
        else:
            self._live[identity] = added = self.tallies.react(*place, *words)
            self.events.append(Added(identity, added, added))


async def contents(redis: Any) -> dict[str, Any]:
    """Return all keys of a channel, their lives, and the journal without its ids."""
    found: dict[str, Any] = {}
    async for key in redis.scan_iter("tally:{*"):
        kind = await redis.type(key)
        found[f"life of {key}"] = await redis.ttl(key) > 0
        if kind == "hash":
            found[key] = await redis.hgetall(key)
        elif kind == "zset":
            found[key] = await redis.zrange(key, 0, -1, withscores=True)
        elif kind == "stream":
            found[key] = _entries(await redis.xrange(key))
            found["head"] = (await redis.xrevrange(key, count=1))[0][0]
    assert await redis.get(KEYS.head(CHANNEL)) == found.pop("head")
    return found


def _entries(journal: list[tuple[str, dict[str, str]]]) -> list[dict[str, str]]:
    """Return entries without ids, each of which names the one before it."""
    ids = ["0-0", *[entry_id for entry_id, _ in journal]]
    assert [entry.pop("after") for _, entry in journal] == ids[:-1]
    return [entry for _, entry in journal]


@pytest.mark.parametrize("seed", range(5))
async def test_fake_tallies_are_what_a_worker_writes(
    claimed: Redis, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Key by key, after the same events. Messages with more than two actions are ranked."""
    monkeypatch.setattr("reaction_tally.testing.writer.RANKED_ABOVE", 2)
    journaled = Journaled(seed)
    for _ in range(60):
        journaled.act()
    store = Store(claimed, KEYS)
    with ranked_above(2):
        for event in journaled.events:
            await apply(store, [event])

    server = cast("Any", journaled.tallies)._server
    async with fakeredis.FakeAsyncRedis(server=server, decode_responses=True) as fake:
        written, expected = await contents(fake), await contents(claimed)
    assert written == expected
    kinds: defaultdict[str, int] = defaultdict(int)
    for key in written:
        kinds[key.rpartition("}:")[2].partition(":")[0]] += 1
    assert kinds.keys() == {"counts", "actions", "removed", "who", "messages", "journal", "head"}
    journaled.tallies.close()


def run(program: str) -> str:
    """Return what a program prints."""
    command = [sys.executable, "-c", program]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_pages_are_read_without_lua() -> None:
    """As with fakeredis alone, without the extra: in two steps."""
    program = f"""
import sys
sys.modules["lupa"] = None
from reaction_tally.testing import fake_tallies
with fake_tallies({GIVEN!r}) as tallies:
    page = tallies.reader.page({CHANNEL!r}, [{MESSAGE!r}], me="ben", names=1)
    print(page.messages[{MESSAGE!r}].total, page.messages[{MESSAGE!r}].reactions[0].names)
"""
    assert run(program) == "3 ('ana',)"


def test_one_user_is_no_list_of_users() -> None:
    """A text would be a user for each letter."""
    with (
        pytest.raises(TypeError, match="users are a list"),
        fake_tallies({(CHANNEL, MESSAGE): {"reaction": {"👍": "ben"}}}),
    ):
        pass


def test_an_error_says_what_to_install() -> None:
    """Where fakeredis is missing. What needs no fakeredis is there."""
    program = """
import sys
sys.modules["fakeredis"] = None
from reaction_tally.testing import NotInstalledError, fake_tallies, tally_service
try:
    with fake_tallies():
        pass
except NotInstalledError as error:
    print(error)
"""
    assert "pip install './client[testing]'" in run(program)


def test_the_client_alone_loads_no_tools_for_tests() -> None:
    """Nor do these load fakeredis or pytest before they are used."""
    program = (
        "import sys; import reaction_tally; print('reaction_tally.testing' in sys.modules); "
        "import reaction_tally.testing; print({'fakeredis', 'pytest', 'worker'} & set(sys.modules))"
    )
    assert run(program).split("\n") == ["False", "set()"]
