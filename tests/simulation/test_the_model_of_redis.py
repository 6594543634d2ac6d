"""The model of Redis gives the same answers and holds the same keys as a real one."""

import time
from collections.abc import Callable, Iterator
from random import Random
from typing import Any, Final, cast

import pytest
from redis.asyncio import Redis
from redis.exceptions import RedisError

from reaction_tally.keys import Keys
from tests.cursors import save_cursor
from tests.ranked import ranked_above
from tests.simulation.keyspace import Commands, Keyspace, Stream, Watcher
from tests.simulation.machine import Machine
from tests.simulation.redis_twin import RedisTwin, Server
from worker.applying.forgetting import forget
from worker.domain.action import Added, Event, Identity, Origin, Pruned, Removed, Restored
from worker.domain.position import Cursor
from worker.errors import RedisUnfitError, ScriptRefusedError
from worker.reconciliation.consistency import Consistency
from worker.store.apply_script import Ttls
from worker.store.audit import Audit
from worker.store.budget import Budget
from worker.store.entries import Entries, entry_keys
from worker.store.ownership import Claim, Ownership
from worker.store.pending_repairs import GapCause
from worker.store.progress import LookProgress, Progress
from worker.store.script_call import CursorSave
from worker.store.store import Applied, Store
from worker.store.tables import Tables
from worker.store.tombstones import Tombstones

KEYS: Final = Keys()
CALLS: Final = 60
RETENTION_SECONDS: Final = 30 * 86400
UNIT_SECONDS: Final = 600
"""Every life and every wait is a multiple of this; a slow machine adds less than half of it."""
INTERVAL_SECONDS: Final = 3 * UNIT_SECONDS
NEAR_SECONDS: Final = UNIT_SECONDS / 2


class AtOnce(RedisTwin):
    """The twin without delays, so that it runs on any loop."""

    async def run(self, commands: Commands, *, transaction: bool = False) -> list[Any]:  # noqa: ARG002
        """Do the commands now."""
        results: list[Any] = []
        for command in commands:
            try:
                results.append(self.server.do(*command))
            except RedisError as error:
                results.append(error)
        return results


class Side:
    """The worker's own classes, on one of the two."""

    def __init__(self, redis: Redis) -> None:
        self.redis = redis
        self.store = Store(redis, KEYS, Ttls(3600, 86400, RETENTION_SECONDS))
        self.tables = Tables(redis, KEYS)
        self.heads: dict[str, str] = {}
        self.ownerships = {days: Ownership(redis, KEYS, _claim(days)) for days in "123"}
        self.entries = Entries(redis, KEYS)
        self.audit = Audit(redis, KEYS)
        self.tombstones = Tombstones(redis, KEYS)
        self.budget = Budget(redis, KEYS, 1 / INTERVAL_SECONDS, sleep=self._waited)
        self.consistency = Consistency(self.entries, self.audit, self.store)
        self.waits: list[float] = []

    async def remove(self, key: str) -> None:
        """Delete a key."""
        await self.redis.delete(key)

    def outcome(self, result: Applied | ScriptRefusedError) -> tuple[Any, ...]:
        """Note a channel's head; return what was done to it, or why it was refused."""
        if isinstance(result, ScriptRefusedError):
            return type(result), str(result)
        if result.head_after != "0-0":
            self.heads.setdefault(result.channel, result.head_after)
        return (
            result.letters,
            result.head_before == result.head_after,
            result.head_before == "0-0",
            bool(result.may_be_unknown),
        )

    async def _waited(self, seconds: float) -> None:
        self.waits.append(seconds)


Ask = Callable[[Side], Any]


class Calls:
    """Draws calls; both sides get each of them."""

    def __init__(self, random: Random) -> None:
        self._random = random
        now = int(time.time() * 10_000_000)
        # One message is older than the retention, one is nearly so, one has too few digits.
        ages = (0, RETENTION_SECONDS + 3600, RETENTION_SECONDS - 3600)
        self._messages = [*(str(now - age * 10_000_000) for age in ages), "1234567890"]
        self._tokens = [str(17_000_000_000_000_000 + n) for n in range(4)] + ["9" * 16]

    def draw(self) -> Ask:
        """Return one call."""
        kinds = (
            [self._apply] * 6
            + [self._repaying, self._saving] * 2
            + [
                self._placing,
                self._knowing,
                self._reading,
                self._damaging,
                self._losing,
                self._forgetting,
            ]
            + [self._claiming, self._proving]
        )
        return self._random.choice(
            [*kinds, self._sweeping, self._forgetting_a_channel, self._spending]
        )()

    def _channel(self) -> str:
        return self._random.choice(("room", "a{b}%c"))

    def _event(self, channel: str) -> Event:
        random = self._random
        type, value = (
            random.choice(("reaction", "re:act%ion")),
            random.choice(("👍", "a:b%{c}", "")),
        )
        identity = Identity(
            channel, random.choice(self._messages), type, value, random.choice(("ana", "u:1"))
        )
        at, other = random.choice(self._tokens), random.choice(self._tokens)
        kind = random.choice((Added, Added, Removed, Pruned, Restored))
        return Pruned(identity, at) if kind is Pruned else kind(identity, at, other)  # type: ignore[call-arg]

    def _apply(self) -> Ask:
        random = self._random
        channels = random.sample(("room", "a{b}%c"), random.choice((1, 1, 2)))
        batches = [
            (channel, [self._event(channel) for _ in range(random.randint(1, 12))])
            for channel in channels
        ]
        saved = [(name, Cursor("17", 1), random.choice((0, 0, 3))) for name in "ab"[: len(batches)]]
        kinds = (KEYS.counts, KEYS.actions, KEYS.removed, who, lambda name, _: KEYS.messages(name))
        wrong = random.choice(kinds)(channels[0], random.choice(self._messages))
        is_damaged = random.random() < 0.1

        async def ask(side: Side) -> Any:
            if is_damaged:
                await side.redis.set(wrong, "not ours")
            saves = [CursorSave(*each) for each in saved]
            results, numbers = await side.store.apply_all(batches, Origin.LIVE, saves)
            if is_damaged:
                await side.remove(wrong)
            return [side.outcome(result) for result in results], numbers

        return ask

    def _saving(self) -> Ask:
        name, known = self._random.choice("ab"), self._random.choice((0, 0, 1, 2, 5))
        cursor = Cursor(self._random.choice(self._tokens), self._random.randint(0, 9))

        async def ask(side: Side) -> Any:
            number = await save_cursor(side.tables.cursors, name, cursor, known)
            saved = await side.tables.cursors.read(name)
            return number, saved and (
                saved.cursor,
                saved.saves,
                0 <= saved.age_seconds < NEAR_SECONDS,
            )

        return ask

    def _damaging(self) -> Ask:
        channel, key = self._channel(), self._random.choice((KEYS.owed, KEYS.progress))

        async def ask(side: Side) -> Any:
            return bool(await side.redis.set(key(channel), "not ours"))

        return ask

    def _repaying(self) -> Ask:
        channel, gap, draw = (
            self._channel(),
            self._random.choice((GapCause.OVERFLOW, GapCause.UNPROVEN)),
            self._random.random(),
        )

        async def ask(side: Side) -> Any:
            if draw < 0.6:
                await side.tables.pending.mark([channel, "other"], gap)
            owed = await side.tables.pending.read(channel)
            if draw > 0.4:
                seen = {
                    cause: at - (draw > 0.8)
                    for cause, at in owed.items()
                    if draw < 0.9 or cause == gap
                }
                left = await side.tables.pending.clear(channel, seen) if seen else -1
                return left, sorted(await side.tables.pending.read(channel))
            return sorted(owed), all(
                abs(at / 1000 - time.time()) < NEAR_SECONDS for at in owed.values()
            )

        return ask

    def _placing(self) -> Ask:
        random = self._random
        place = Progress("17", "16", random.choice((None, "5")), random.randint(0, 9))
        channel, draw = self._channel(), random.random()

        async def ask(side: Side) -> Any:
            table = side.tables.progress
            if draw < 0.5:
                await table.save(place, channel, "other")
            elif draw < 0.7:
                await table.save_look(LookProgress(7, "18"), channel)
            elif draw < 0.85:
                await table.end(channel)
            else:
                await table.end_look(channel)
            return await table.read_all([channel, "other"]), await table.read_look(channel)

        return ask

    def _knowing(self) -> Ask:
        channels = self._random.sample(
            ("room", "a{b}%c", "other", "more"), self._random.randint(1, 3)
        )
        remembers = self._random.random() < 0.5

        async def ask(side: Side) -> Any:
            if remembers:
                await side.tables.channels.add(channels)
            else:
                await side.tables.dead_letters.add(channels[0], "why \ud83d", "payload")
            near = abs(await side.tables.server.now() / 1000 - time.time()) < NEAR_SECONDS
            return (
                await side.tables.channels.unknown(channels),
                await side.tables.channels.all(),
                near,
                bool(await side.tables.server.run_id()),
            )

        return ask

    def _reading(self) -> Ask:
        channel, since = self._channel(), self._random.choice((None, *self._tokens))
        identities = [self._event(channel).identity for _ in range(3)]

        async def ask(side: Side) -> Any:
            live = {
                entry
                async for batch in side.entries.scan(channel, since)
                for each in batch
                for entry in entry_keys(each)
            }
            read = await side.entries.read(channel, identities)
            return (
                live,
                read,
                await side.entries.oldest(channel),
                await side.audit.channels([channel]),
            )

        return ask

    def _losing(self) -> Ask:
        """Lose a key, as an eviction does, and let it be mended."""
        channel, message = self._channel(), self._random.choice(self._messages)
        kinds = (KEYS.counts, KEYS.actions, who, lambda name, _: KEYS.messages(name))
        lost = self._random.choice(kinds)(channel, message)

        async def ask(side: Side) -> Any:
            await side.remove(lost)
            unindexed = await side.audit.unindexed([channel])
            restored = await side.consistency.restore_messages(channel, self._messages)
            return unindexed, restored, await side.consistency.restore(channel)

        return ask

    def _forgetting(self) -> Ask:
        channel, message = self._channel(), self._random.choice(self._messages)
        at = self._random.choice(self._tokens)

        async def ask(side: Side) -> Any:
            since = round((time.time() - RETENTION_SECONDS) * 1000)
            busy = await side.tombstones.busy_messages(channel, since, 1)
            held = await cast("Any", side.redis).hgetall(KEYS.removed(channel, message))
            seen = {item for item in held.items() if item[1] >= at}
            others = await side.tombstones.forget_seen(channel, message, set(map(hash, seen)))
            changed = {"reaction:👍:nobody": at, **dict.fromkeys(held, "1")}
            await side.tombstones.forget(channel, message, changed)
            return sorted(busy), held, others

        return ask

    def _claiming(self) -> Ask:
        days = self._random.choice("123")
        has_lost, is_used = self._random.random() < 0.3, self._random.random() < 0.3
        replaces = self._random.choice(["", "all", "other"])

        async def ask(side: Side) -> Any:
            if is_used:
                await side.tables.cursors.register("a", ["room"])
            else:
                await side.tables.cursors.end_heartbeats()
            own = side.ownerships[days]
            claimed = await _tried(own.claim(has_lost=has_lost, replaces=replaces))
            held = [await _tried(own.is_held()) for own in side.ownerships.values()]
            return claimed, held

        return ask

    def _proving(self) -> Ask:
        is_cut, is_newer = self._random.random() < 0.3, self._random.random() < 0.3

        async def ask(side: Side) -> Any:
            heads = {channel: "5-0" if is_cut else head for channel, head in side.heads.items()}
            if is_newer:
                heads["nowhere"] = "7-0"
            cursors = await side.tables.cursors.lost({"a": 1 + 3 * is_cut, "c": 1})
            return sorted(await side.tables.heads.lost(heads.items())), sorted(cursors)

        return ask

    def _sweeping(self) -> Ask:
        channel = self._channel()

        async def ask(side: Side) -> Any:
            return await side.store.sweep(channel)

        return ask

    def _forgetting_a_channel(self) -> Ask:
        channel = self._channel()

        async def ask(side: Side) -> Any:
            return await forget(channel, side.tables, side.store)

        return ask

    def _spending(self) -> Ask:
        hold = self._random.choice((0.0, 0.0, 6.0 * INTERVAL_SECONDS))

        async def ask(side: Side) -> Any:
            side.waits.clear()
            await (side.budget.hold(hold) if hold else side.budget.take())
            return [round(seconds / UNIT_SECONDS) for seconds in side.waits]

        return ask


def who(channel: str, message: str) -> str:
    """Return the key of who chose a tally."""
    return KEYS.who(channel, message, "reaction:👍")


class HintWatcher(Watcher):
    """Collects the hints of the model, without the heads: they have the time of each side."""

    def __init__(self) -> None:
        self.hints: list[str] = []

    def hinted(self, topic: str, hint: str) -> None:
        """Note it."""
        assert topic == KEYS.hints
        self.hints.append(hint.rpartition(" ")[0])


@pytest.fixture
def few_are_ranked() -> Iterator[None]:
    """Rank messages with more than three actions."""
    with ranked_above(3):
        yield


async def hints_of(redis: Redis, subscription: Any) -> list[str]:
    """Return the hints of a real Redis, as ``HintWatcher`` has them."""
    await redis.publish(KEYS.hints, "")
    found = []
    while (message := await subscription.get_message(timeout=None))["data"]:
        if message["type"] == "message":
            found.append(message["data"].rpartition(" ")[0])
    return found


@pytest.mark.usefixtures("few_are_ranked")
@pytest.mark.parametrize("seed", range(16))
async def test_the_model_agrees_with_a_real_redis(real_redis: Redis, seed: int) -> None:
    """Every answer is the same, and so are every key, its value, its life, and every hint."""
    watcher = HintWatcher()
    keyspace = Keyspace(time.time, watcher)
    real, model = (
        Side(real_redis),
        Side(cast("Redis", AtOnce(Server(keyspace, Random(seed)), Machine("test"), None))),
    )
    calls = Calls(Random(seed))

    async with real_redis.pubsub() as subscription:
        await subscription.subscribe(KEYS.hints)
        for number in range(CALLS):
            ask = calls.draw()
            assert await ask(model) == await ask(real), (
                f"call {number} of seed {seed}: {ask.__qualname__}"
            )
        assert watcher.hints == await hints_of(real_redis, subscription)

    assert _shown(keyspace) == await _held(real_redis)


async def test_a_full_redis_refuses_the_same(real_redis: Redis) -> None:
    """The model without room refuses the same commands."""
    keyspace = Keyspace(time.time)
    server = Server(keyspace, Random(0))
    sides = Side(real_redis), Side(cast("Redis", AtOnce(server, Machine("test"), None)))
    identity = Identity("room", str(int(time.time() * 10_000_000)), "reaction", "👍", "ana")
    for side in sides:
        await side.store.apply_all([("room", [Added(identity, "17", "17")])], Origin.LIVE)
        await side.tables.pending.mark(["room"], GapCause.OVERFLOW)
    server.is_full = True
    await real_redis.config_set("maxmemory", "1")
    owed = [await side.tables.pending.read("room") for side in sides]

    async def tried(call: Any) -> str:
        try:
            return str(await call)
        except Exception as error:
            return type(error).__name__

    try:
        found = [
            [
                await tried(
                    side.store.apply_all([("room", [Added(identity, "18", "18")])], Origin.LIVE)
                ),
                await tried(side.tables.pending.mark(["room"], GapCause.OVERFLOW)),
                await tried(save_cursor(side.tables.cursors, "a", Cursor("17", 0))),
                await tried(side.tables.progress.save(Progress("17", "17"), "room")),
                await tried(side.tables.channels.add(["more"])),
                await tried(side.tables.dead_letters.add("room", "why", "payload")),
                await tried(side.budget.take()),
                await tried(side.entries.read("room", [identity])),
                await tried(side.tables.pending.clear("room", mark)),
            ]
            for side, mark in zip(sides, owed, strict=True)
        ]
    finally:
        await real_redis.config_set("maxmemory", "0")

    assert found[0] == found[1]
    assert "RedisUnavailableError" in found[0]


def _shown(keyspace: Keyspace) -> dict[str, Any]:
    shown = {}
    for key in list(keyspace.values):
        if (value := keyspace.look(key, object)) is not None:
            life = keyspace.deaths.get(key)
            told = [fields for _, fields in value.entries] if isinstance(value, Stream) else value
            shown[key] = comparable(key, told, None if life is None else life - time.time())
    return shown


async def _held(redis: Redis) -> dict[str, Any]:
    commands = cast("Any", redis)
    held = {}
    for key in await commands.keys("*"):
        value: Any
        match await commands.type(key):
            case "hash":
                value = await commands.hgetall(key)
            case "set":
                value = await commands.smembers(key)
            case "zset":
                value = dict(await commands.zrange(key, 0, -1, withscores=True))
            case "stream":
                value = [fields for _, fields in await commands.xrange(key)]
            case _:
                value = await commands.get(key)
        life = await commands.pttl(key)
        held[key] = comparable(key, value, None if life < 0 else life / 1000)
    return held


async def _tried(call: Any) -> str:
    try:
        return str(await call)
    except RedisUnfitError as error:
        return str(error)


def _claim(days: str) -> Claim:
    return Claim(
        subscribe_key="demo",
        types="other" if days == "3" else "all",
        retention_days=days,
        tombstone_seconds="3600",
        settle_seconds="60",
    )


def comparable(key: str, value: Any, life: float | None) -> Any:
    """Leave out what time and chance make different: journal ids, marks, times of cursors."""
    if key.endswith(":head") or key == KEYS.budget:
        value = "some"
    elif key.endswith(":owed"):
        value = sorted(value)
    elif key.endswith(":journal"):
        value = [
            {name: told for name, told in fields.items() if name != "after"} for fields in value
        ]
    elif key == KEYS.meta:
        value = {name: told for name, told in value.items() if name != "life"}
    elif ":cursor:" in key:
        value = {name: told for name, told in value.items() if name != "saved_at"}
    return value, None if life is None else round(life / UNIT_SECONDS)


def test_the_model_goes_back() -> None:
    """A copy does not change later, neither before nor after it is put back."""
    keyspace = Keyspace(lambda: 1000.0)
    keyspace.hset("hash", "a", 1)
    keyspace.xadd("stream", {"a": "1"})
    copied = keyspace.copied()

    keyspace.hset("hash", "a", 2)
    keyspace.xadd("stream", {"a": "2"})
    keyspace.put_back(copied)
    keyspace.hset("hash", "a", 3)
    keyspace.put_back(copied)

    assert keyspace.hgetall("hash") == {"a": "1"}
    assert len(keyspace.xrange("stream")) == 1


def test_a_full_model_raises_errors_of_redis() -> None:
    """It raises what redis-py raises."""
    server = Server(Keyspace(lambda: 1000.0), Random(0))
    server.is_full = True

    with pytest.raises(RedisError, match="maxmemory"):
        server.do("sadd", ("set", "a"), {})
