"""A Redis in memory: the commands and scripts that the worker uses, each of them atomic.

The scripts are written a second time here, with the pure rule for ``apply``.
``test_the_model_of_redis.py`` compares all of it with a real server.
"""

# ruff: noqa: ARG002, D102 - the commands are redis-py's, and so are their arguments

import copy
import fnmatch
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from redis.exceptions import NoPermissionError, ResponseError

from reaction_tally.keys import WHO_EPOCH, action_prefix
from worker.domain.action import Added, Event, Identity, Pruned, Removed, Restored
from worker.domain.entry import Entry, Outcome, apply
from worker.store import scripts
from worker.store.audit import live_entries

VERBS: Final = (
    "apply",
    "claim",
    "forget_tombstones",
    "owe",
    "rank",
    "rebuild",
    "repay",
    "sweep",
    "take_budget",
)
SCRIPTS: Final = {scripts.sha1(verb): verb for verb in VERBS}
REDIS_ONLY: Final = frozenset(
    {
        "hgetall",
        "hget",
        "hkeys",
        "hlen",
        "mget",
        "pttl",
        "smismember",
        "smembers",
        "time",
        "info",
        "hscan",
        "zscan",
        "zrangebyscore",
        "zrevrangebyscore",
        "forget_tombstones",
        "execute_command",
        "exists",
        "type",
        "expire",
        "hdel",
        "srem",
        "unlink",
        "zrange",
    }
)
READS_TOO: Final = frozenset(
    {"zscore", "zmscore", "zcard", "zrange", "zrangebyscore", "zrem"}
    | {"scard", "xrange", "get", "repay"}
)
"""What a full Redis still does; ``repay`` and ``zrem`` only delete."""
CHANGES: Final = (Outcome.APPLIED, Outcome.SUPERSEDED, Outcome.EARLY)
SOMEBODY: Final = Identity("", "", "", "", "")

Args = Sequence[Any]
Commands = Sequence[tuple[str, tuple[Any, ...], Mapping[str, Any]]]


@dataclass(frozen=True, slots=True)
class Effect:
    """One event of an apply, and what it did."""

    event: str
    outcome: Outcome
    message: str
    field: str
    tally: str
    timetoken: str
    count: int


@dataclass(slots=True)
class Applied:
    """What ``apply`` did to a channel, or one call of ``sweep``, for a watcher."""

    keys: Sequence[str]
    origin: str
    effects: list[Effect]
    head_before: str
    head_after: str


class Watcher:
    """Is called after each effect; it must not change anything."""

    def applied(self, done: Applied) -> None:
        """Note what a call of ``apply`` did to a channel."""

    def rebuilt(self, keys: Sequence[str], changes: Sequence[str]) -> None:
        """Note that a call of ``rebuild`` changed something."""

    def repaid(self, key: str) -> None:
        """Note that marks of a channel were taken back."""

    def hinted(self, topic: str, hint: str) -> None:
        """Note that a hint was published."""

    def cursor_saved(self, key: str, timetoken: str) -> None:
        """Note that a cursor was saved."""

    def owed(self, key: str, cause: str) -> None:
        """Note that a channel was marked."""


@dataclass(slots=True)
class Stream:
    """A journal."""

    entries: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    last: tuple[int, int] = (0, 0)

    def __copy__(self) -> "Stream":
        return Stream(list(self.entries), self.last)


class Keyspace:
    """Keys and values, and their commands."""

    def __init__(self, clock: Callable[[], float], watcher: Watcher | None = None) -> None:
        self.clock = clock
        self.watcher = watcher or Watcher()
        self.run_id = "run-0"
        self.denied: frozenset[str] = frozenset()
        """Commands and scripts that an ACL refuses; ``journal`` is XADD inside a script."""
        self.values: dict[str, Any] = {}
        self.deaths: dict[str, float] = {}

    def copied(self) -> tuple[dict[str, Any], dict[str, float]]:
        """Return a copy of everything."""
        return {key: copy.copy(value) for key, value in self.values.items()}, dict(self.deaths)

    def put_back(self, copied: tuple[dict[str, Any], dict[str, float]]) -> None:
        """Take a copy as the new state."""
        values, deaths = copied
        self.values = {key: copy.copy(value) for key, value in values.items()}
        self.deaths = dict(deaths)

    def do(self, name: str, args: Args, options: Mapping[str, Any]) -> Any:
        """Do one command of redis-py, or the script of that name; answer as redis-py does.

        Raises:
            RedisError: it is refused.
        """
        self._permit(name, name)
        if name in VERBS and "journal" in self.denied:
            return self._do_without_journal(name, args)
        return getattr(self, "put" if name == "set" else name)(*args, **options)

    def _do_without_journal(self, verb: str, args: Args) -> Any:
        """Call a script. The journal is the first that it writes, if it writes it."""
        before = self.copied()
        try:
            return getattr(self, verb)(*args)
        except NoPermissionError:
            self.put_back(before)
            raise

    def look(self, key: str, kind: type) -> Any:
        """Return what a key holds, or None."""
        if (death := self.deaths.get(key)) is not None and death <= self.clock():
            self.delete(key)
        held = self.values.get(key)
        if held is not None and not isinstance(held, kind):
            raise ResponseError("WRONGTYPE Operation against a key holding the wrong kind of value")
        return held

    def _permit(self, name: str, command: str) -> None:
        if name in self.denied:
            raise NoPermissionError(f"NOPERM User tally has no permissions to run '{command}'")

    def delete(self, key: str) -> None:
        """Delete a key."""
        self.values.pop(key, None)
        self.deaths.pop(key, None)

    def unlink(self, *keys: str) -> int:
        """Delete keys; count those that were there."""
        there = [key for key in keys if self.exists(key)]
        for key in there:
            self.delete(key)
        return len(there)

    def _hold(self, key: str, kind: type) -> Any:
        held = self.look(key, kind)
        if held is None:
            held = self.values[key] = kind()
        return held

    def _drop(self, key: str, *fields: str) -> None:
        held = self.look(key, dict)
        for name in fields:
            if held:
                held.pop(name, None)
        if held is not None and not held:
            self.delete(key)

    # --- commands --------------------------------------------------------------------------------

    def time(self) -> tuple[int, int]:
        now = self.clock()
        return int(now), int(now % 1 * 1_000_000)

    def info(self, section: str) -> dict[str, str]:
        return {"run_id": self.run_id}

    def get(self, key: str) -> str | None:
        found: str | None = self.look(key, str)
        return found

    def mget(self, keys: Sequence[str]) -> list[str | None]:
        held = (self.look(key, object) for key in keys)
        return [each if isinstance(each, str) else None for each in held]

    def pttl(self, key: str) -> int:
        if self.look(key, object) is None:
            return -2
        death = self.deaths.get(key)
        return -1 if death is None else round(1000 * (death - self.clock()))

    def put(self, key: str, value: Any) -> bool:
        self.values[key] = str(value)
        self.deaths.pop(key, None)
        return True

    def hgetall(self, key: str) -> dict[str, str]:
        return dict(self.look(key, dict) or {})

    def hget(self, key: str, name: str) -> str | None:
        found: str | None = (self.look(key, dict) or {}).get(name)
        return found

    def hkeys(self, key: str) -> list[str]:
        return list(self.hgetall(key))

    def hlen(self, key: str) -> int:
        return len(self.look(key, dict) or {})

    def hset(
        self,
        key: str,
        name: str | None = None,
        value: Any = None,
        mapping: Mapping[str, Any] | None = None,
    ) -> int:
        given = dict(mapping or {}) | ({} if name is None else {name: value})
        held = self._hold(key, dict)
        new = len(given.keys() - held.keys())
        held.update({each: str(told) for each, told in given.items()})
        return new

    def hdel(self, key: str, *names: str) -> int:
        gone = [name for name in names if self.hget(key, name) is not None]
        self._drop(key, *gone)
        return len(gone)

    def exists(self, *keys: str) -> int:
        return sum(self.look(key, object) is not None for key in keys)

    def type(self, key: str) -> str:
        held = self.look(key, object)
        if isinstance(held, dict) and (key.endswith(":messages") or ":who:" in key):
            return "zset"
        names = {dict: "hash", set: "set", str: "string", Stream: "stream"}
        return names.get(type(held), "none")

    def expire(self, key: str, seconds: int) -> int:
        if self.look(key, object) is None:
            return 0
        self.deaths[key] = self.clock() + seconds
        return 1

    def sadd(self, key: str, *names: str) -> int:
        held = self._hold(key, set)
        new = len(set(names) - held)
        held.update(names)
        return new

    def srem(self, key: str, name: str) -> int:
        held = self.look(key, set) or set()
        removed = int(name in held)
        held.discard(name)
        if not held:
            self.delete(key)
        return removed

    def smembers(self, key: str) -> set[str]:
        return set(self.look(key, set) or ())

    def scard(self, key: str) -> int:
        return len(self.look(key, set) or ())

    def smismember(self, key: str, names: Sequence[str]) -> list[int]:
        held = self.look(key, set) or ()
        return [int(name in held) for name in names]

    def xadd(
        self,
        key: str,
        fields: Mapping[str, Any],
        maxlen: int | None = None,
        approximate: bool = True,
    ) -> str:
        stream: Stream = self._hold(key, Stream)
        return self._append(stream, {name: str(value) for name, value in fields.items()})

    def xrange(
        self, key: str, oldest: str = "-", newest: str = "+", count: int | None = None
    ) -> list[Any]:
        held: Stream = self.look(key, Stream) or Stream()
        first, last = _bound(oldest), _bound(newest)
        return [entry for entry in held.entries if first <= _bound(entry[0]) <= last][:count]

    def hscan(self, key: str, place: int, count: int | None = None) -> tuple[int, dict[str, str]]:
        return 0, self.hgetall(key)

    def zscan(
        self, key: str, place: int, count: int | None = None
    ) -> tuple[int, list[tuple[str, float]]]:
        return 0, list((self.look(key, dict) or {}).items())

    def zrevrangebyscore(
        self, key: str, newest: str, oldest: str, *, start: int, num: int, withscores: bool
    ) -> list[tuple[str, float]]:
        below = float(newest.removeprefix("("))
        pairs = [(member, score) for member, score in self.zscan(key, 0)[1] if score < below]
        return sorted(pairs, key=lambda pair: (pair[1], pair[0]), reverse=True)[start : start + num]

    def incrby(self, key: str, amount: int) -> int:
        total = int(self.get(key) or 0) + amount
        self.values[key] = str(total)
        return total

    def zscore(self, key: str, member: str) -> float | None:
        found: float | None = (self.look(key, dict) or {}).get(member)
        return found

    def zmscore(self, key: str, members: Sequence[str]) -> list[float | None]:
        return [self.zscore(key, member) for member in members]

    def zadd(
        self,
        key: str,
        mapping: Mapping[str, float],
        gt: bool = False,
        lt: bool = False,
        xx: bool = False,
    ) -> int:
        held = self._hold(key, dict)
        new = len(mapping.keys() - held.keys())
        for member, score in mapping.items():
            before = held.get(member, float(score))
            if xx and member not in held:
                continue
            if (gt and score < before) or (lt and score > before):
                continue
            held[member] = float(score)
        return new

    def zrem(self, key: str, *members: str) -> int:
        held = self.look(key, dict) or {}
        gone = [member for member in members if member in held]
        self._drop(key, *gone)
        return len(gone)

    def zcard(self, key: str) -> int:
        return len(self.look(key, dict) or ())

    def zrange(self, key: str, first: int, last: int, withscores: bool = False) -> Sequence[object]:
        pairs = self._ranked(key)[first : last + 1]
        return pairs if withscores else [member for member, _ in pairs]

    def zrangebyscore(
        self,
        key: str,
        least: float,
        most: str,
        start: int = 0,
        num: int | None = None,
        withscores: bool = False,
    ) -> Sequence[object]:
        pairs = [pair for pair in self._ranked(key) if least <= pair[1] <= float(most)]
        chosen = pairs[start:] if num is None else pairs[start : start + num]
        return chosen if withscores else [member for member, _ in chosen]

    def _ranked(self, key: str) -> list[tuple[str, float]]:
        held = (self.look(key, dict) or {}).items()
        return sorted(held, key=lambda pair: (pair[1], pair[0].encode()))

    def execute_command(self, name: str, _: int, *words: str | int) -> tuple[int, list[str]]:
        assert name == "SCAN"
        options = dict(zip(words[::2], words[1::2], strict=True))
        kind = dict if options.get("TYPE") == "hash" else object
        pattern = str(options["MATCH"])
        held = [key for key in list(self.values) if isinstance(self.look(key, object), kind)]
        return 0, fnmatch.filter(held, pattern)

    # --- scripts ---------------------------------------------------------------------------------

    def _append(self, stream: Stream, fields: dict[str, str]) -> str:
        now = int(self.clock() * 1000)
        stream.last = (now, 0) if now > stream.last[0] else (stream.last[0], stream.last[1] + 1)
        at = f"{stream.last[0]}-{stream.last[1]}"
        stream.entries.append((at, fields))
        return at

    def _journal(self, keys: Sequence[str], life: int, origin: str, changes: list[str]) -> str:
        journal_key, head_key = keys[1], keys[2]
        self._permit("journal", "xadd")
        stream: Stream = self._hold(journal_key, Stream)
        fields = {"after": self.get(head_key) or "0-0", "origin": origin}
        fields |= {str(number): change for number, change in enumerate(changes)}
        at = self._append(stream, fields)
        oldest = (int(self.clock()) - life) * 1000
        stream.entries = [
            entry for entry in stream.entries if int(entry[0].partition("-")[0]) >= oldest
        ]
        self.values[head_key] = at
        self.deaths[journal_key] = self.clock() + life
        return at

    def _hint(self, keys: Sequence[str], head: str) -> None:
        """Publish the hint that a channel has a new head. An ACL that refuses it is no error."""
        namespace, _, rest = keys[2].partition(":{")
        if "publish" not in self.denied:
            self.watcher.hinted(f"{namespace}:changed", f"{rest.removesuffix('}:head')} {head}")

    def _is_expired(self, message: str, retention: int) -> bool:
        if retention < 1:
            return bool(retention)  # -1: whatever its age
        oldest = f"{int(self.clock()) - retention}0000000"
        return len(message) == len(oldest) and message < oldest

    def apply(self, keys: Sequence[str], args: Args) -> list[Any]:
        """Apply events of some channels, then save cursors, as ``apply.lua`` does."""
        options, count, texts = args[:5], int(args[6]), [str(arg) for arg in args[7:]]
        answers: list[Any] = []
        passed = frozenset(keys)
        for _ in range(count):
            key_count, text_count = 3 + 3 * int(texts[0]), 2 + int(texts[1])
            own, told = keys[:key_count], texts[2:text_count]
            answers.append(self._tried(self._apply_channel, own, told, options, passed))
            keys, texts = keys[key_count:], texts[text_count:]
        if any(len(answer) < 4 or answer[3] for answer in answers):
            return answers
        saves = [texts[start : start + 5] for start in range(0, len(texts), 5)]
        done = [self._tried(self._save_cursor, *each) for each in zip(keys, saves, strict=False)]
        return answers + [number for (number,) in done]

    def _tried(self, what: Callable[..., list[Any]], *args: Any) -> list[Any]:
        """Return an answer, or why it is refused: then nothing of it is written."""
        before = self.copied() if "journal" in self.denied else None
        try:
            return what(*args)
        except ResponseError as error:
            if before:
                self.put_back(before)
            return [str(error)]

    def _apply_channel(
        self, keys: Sequence[str], texts: Sequence[str], options: Args, passed: frozenset[str]
    ) -> list[Any]:
        origin, tombstone, life, retention, most = str(options[0]), *map(int, options[1:])
        effects: list[Effect] = []
        tombstoned: set[str] = set()
        told: dict[str, int] = {}
        head = self.get(keys[2]) or "0-0"
        was_empty = not self.look(keys[0], dict)
        self._read_all(keys)
        held = {key: copy.copy(self.values[key]) for key in keys if key in self.values}
        lives = {key: self.deaths[key] for key in keys if key in self.deaths}
        for own, message, newest, events in _laid_out(keys[3:], texts):
            done = [self._apply_one(own, message, event, retention) for event in events]
            effects += done
            if any(
                each.event == "removed" and each.outcome is not Outcome.EXPIRED for each in done
            ):
                tombstoned.add(own[2])
            if any(each.outcome in CHANGES for each in done):
                told[message] = newest
        ranking = Ranking(most, passed)
        for key in keys[4::3]:
            ranking.note(key, held.get(key, {}), self.hgetall(key))
        if ranking.missing:
            self._put_keys_back(keys, held, lives)
            return ["", sorted(ranking.missing)]
        for key in tombstoned & self.values.keys():
            self.deaths[key] = self.clock() + tombstone
        self._write_ranking(ranking)
        index = self._hold(keys[0], dict) if told else {}
        for message, newest in told.items():
            index[message] = max(index.get(message, 0.0), float(newest))
        changed = [each for each in effects if each.outcome in CHANGES]
        after = head
        if changed:
            lines = [
                f"{c.event} {c.outcome.value} {c.timetoken} {c.count} {c.message} {c.field}"
                for c in changed
            ]
            after = self._journal(keys, life, origin, lines)
        self.watcher.applied(Applied(keys, origin, effects, head, after))
        if changed:
            self._hint(keys, after)
        letters = "".join(
            "x" if each.outcome is Outcome.EXPIRED else each.outcome.value[0] for each in effects
        )
        return [head, after, letters, int(was_empty if changed else origin == "live")]

    def _read_all(self, keys: Sequence[str]) -> None:
        """Read every key of a script before it writes: index, journal, head, and hashes."""
        for key, kind in zip(keys, (dict, Stream, str, *[dict] * len(keys)), strict=False):
            self.look(key, kind)

    def _apply_one(
        self, keys: Sequence[str], message: str, args: Sequence[str], retention: int
    ) -> Effect:
        kind, timetoken, extra, name, tally = args
        counts_key, actions_key, removed_key = keys
        count = int((self.look(counts_key, dict) or {}).get(tally, 0))
        if self._is_expired(message, retention):
            return Effect(kind, Outcome.EXPIRED, message, name, tally, timetoken, count)
        before = Entry(
            (self.look(actions_key, dict) or {}).get(name),
            (self.look(removed_key, dict) or {}).get(name),
        )
        after, outcome = apply(before, _event(kind, timetoken, extra))
        self._keep(actions_key, name, before.live, after.live)
        self._keep(removed_key, name, before.removed_through, after.removed_through)
        # The count is stepped, not derived from the entries: a derived one could not be wrong.
        if outcome is Outcome.APPLIED:
            count = max(0, count + (1 if kind in ("added", "restored") else -1))
            self._keep(counts_key, tally, None, str(count) if count else None)
        return Effect(kind, outcome, message, name, tally, timetoken, count)

    def _keep(self, key: str, name: str, before: str | None, after: str | None) -> None:
        if after is None:
            self._drop(key, name)
        elif after != before:
            self._hold(key, dict)[name] = after

    def _put_keys_back(
        self, keys: Sequence[str], values: Mapping[str, Any], deaths: Mapping[str, float]
    ) -> None:
        for key in keys:
            self.delete(key)
        self.values |= values
        self.deaths |= deaths

    def _write_ranking(self, ranking: "Ranking") -> None:
        for key in ranking.deleted:
            self.delete(key)
        for key, users in ranking.changed.items():
            if self.type(key) not in ("zset", "none"):
                self.delete(key)
            self.zadd(key, {user: at for user, at in users.items() if at is not None})
            self.zrem(key, *[user for user, at in users.items() if at is None])
            if not self.look(key, dict):
                self.delete(key)

    def rank(self, keys: Sequence[str], args: Args) -> list[str]:
        counts_key, actions_key = keys[:2]
        actions, counts = self.hgetall(actions_key), self.hgetall(counts_key)
        tallies = {
            action_prefix(tally)[:-1]: int(count) if count.isdecimal() else 0
            for tally, count in counts.items()
        }
        if max(len(actions), sum(tallies.values())) <= int(args[1]):
            return []
        own = {_who_key(actions_key, tally): size for tally, size in tallies.items()}
        if missing := own.keys() - set(keys):
            return sorted(missing)
        ranking = Ranking(int(args[1]), frozenset(keys))
        ranking.note(actions_key, {}, actions)
        for key, size in own.items():
            if len(actions) <= int(args[1]):
                self.delete(key)
            elif self.type(key) != "zset" or self.zcard(key) != size:
                self.delete(key)
                users = ranking.changed.get(key, {})
                self.zadd(key, {user: at for user, at in users.items() if at is not None})
        return []

    def rebuild(self, keys: Sequence[str], args: Args) -> int:
        life, message, most = int(args[0]), str(args[1]), int(args[2])
        index_key, _, _, counts_key, actions_key = keys
        self._read_all(keys)
        live, strays = live_entries(self.hgetall(actions_key))
        is_lost = bool(live) and self.zscore(index_key, message) is None
        held = self.hgetall(counts_key)
        right = {tally: str(count) for tally, count in live.items()}
        tallies = held.keys() | right.keys()
        differing = sorted(
            (tally for tally in tallies if held.get(tally) != right.get(tally)), key=str.encode
        )
        changes = []
        for tally in differing[:most]:
            self._keep(counts_key, tally, None, right.get(tally))
            prefix = action_prefix(tally)
            changes.append(f"rebuilt applied {message} {live[tally]} {message} {prefix}")
        if is_lost:
            times = [at for name, at in self.hgetall(actions_key).items() if name not in strays]
            newest = max(times, key=lambda at: (len(at), at))
            self._hold(index_key, dict)[message] = float(newest[:-4] or 0)
        deleted = self.hdel(actions_key, *strays[:most])
        head = self._journal(keys, life, "reconcile", changes) if changes else ""
        if changes or is_lost:
            self.watcher.rebuilt(keys, changes)
        if changes:
            self._hint(keys, head)
        return int(bool(changes or is_lost or deleted))

    def _save_cursor(self, key: str, args: Args) -> list[Any]:
        held = self.look(key, dict) or {}
        saves = int(held.get("saves", 0))
        if saves < int(args[2]):
            return [0]
        told = {
            "timetoken": args[0],
            "region": args[1],
            "saved_at": int(self.clock() - float(args[3])),
            "saves": saves + 1,
        }
        self.hset(key, mapping=told)
        if args[4]:
            self.hset(key, "shards", args[4])
        self.expire(key, 604_800)
        self.watcher.cursor_saved(key, args[0])
        return [saves + 1]

    def owe(self, keys: Sequence[str], args: Args) -> int:
        is_damaged = self._delete_damaged(keys[0])
        held = self.hget(keys[0], args[0]) or "0"
        before = int(held) if held.isdecimal() else 0
        now = int(self.clock() * 1000)
        self.hset(keys[0], args[0], max(now, before + 1) if before <= now + 30_000 else now)
        self.watcher.owed(keys[0], str(args[0]))
        return int(is_damaged)

    def _delete_damaged(self, key: str) -> bool:
        is_damaged = self.type(key) not in ("hash", "none")
        if is_damaged:
            self.delete(key)
        return is_damaged

    def repay(self, keys: Sequence[str], args: Args) -> list[int]:
        if self._delete_damaged(keys[0]):
            if list(map(str, args[:2])) == ["damaged_key", "0"]:
                return [0, 1]
            self.hset(keys[0], "damaged_key", "0")
            return [1, 1]
        for cause, at in zip(args[::2], args[1::2], strict=True):
            held = self.hget(keys[0], cause)
            mark = held if held is None or held.isdecimal() else "0"
            if mark == str(at):
                self._drop(keys[0], cause)
                self.watcher.repaid(keys[0])
        return [len(self.look(keys[0], dict) or {}), 0]

    def forget_tombstones(self, keys: Sequence[str], args: Args) -> int:
        pairs = zip(args[::2], args[1::2], strict=True)
        return self.hdel(
            keys[0], *[name for name, seen in pairs if self.hget(keys[0], name) == seen]
        )

    def take_budget(self, keys: Sequence[str], args: Args) -> int:
        interval, burst, hold = map(int, args)
        now = int(self.clock() * 1_000_000)
        debt, at = map(int, (self.get(keys[0]) or f"0 {now}").split(" "))
        debt = max(0, debt - max(0, now - at))
        debt = max(debt, hold + interval * (burst - 1)) if hold else debt + interval
        self.values[keys[0]] = f"{debt} {now}"
        self.deaths[keys[0]] = self.clock() + math.ceil(debt / 1000) / 1000 + 1
        return max(0, debt - interval * burst)

    def claim(self, keys: Sequence[str], args: Args) -> list[str]:
        """Claim a namespace, as ``claim.lua`` does."""
        (meta,) = keys
        life, new_life, has_lost, is_used, owners, unbinding = args[:6]
        wanted = {name: str(value) for name, value in zip(args[6::2], args[7::2], strict=True)}
        held = self.hgetall(meta)

        def matters(number: int, name: str) -> bool:
            if number >= owners:
                return name in held and bool(is_used)
            if name == "types" and held.get(name) == unbinding:
                return bool(is_used)
            return bool(held)

        refused = [
            name
            for number, name in enumerate(wanted)
            if held.get(name) != wanted[name] and matters(number, name)
        ]
        if not refused:
            if "life" not in held or (held["life"] == life and has_lost):
                self.hset(meta, "life", new_life)
            self.hset(meta, mapping=wanted)
        return [part for pair in self.hgetall(meta).items() for part in pair]

    def sweep(self, keys: Sequence[str], args: Args) -> list[Any]:
        life, retention, most = map(int, args[:3])
        messages = [str(arg) for arg in args[3:]]
        self._read_all(keys[:3])
        missing: set[str] = set()
        index = self.look(keys[0], dict) or {}
        doomed = []
        for number, message in enumerate(messages):
            if message in index and self._is_expired(message, retention):
                counts_key, actions_key, removed_key = keys[3 + 3 * number : 6 + 3 * number]
                ranked = self._who_keys(counts_key, actions_key, most)
                if ranked <= set(keys):
                    doomed.append((number, message))
                    self.unlink(counts_key, actions_key, removed_key, *ranked)
                missing |= ranked - set(keys)
        for _, message in doomed:
            self._drop(keys[0], message)
        if doomed:
            head = self.get(keys[2]) or "0-0"
            lines = [f"expired applied {each} 0 {each} " for _, each in doomed]
            after = self._journal(keys, life, "sweep", lines)
            own = keys[: 3 + 3 * len(messages)]
            self.watcher.applied(Applied(own, "sweep", [], head, after))
            self._hint(keys, after)
        return [len(doomed), sorted(missing)]

    def _who_keys(self, counts_key: str, actions_key: str, most: int) -> set[str]:
        """Return the who keys of a message, as far as its hashes are what the worker keeps."""
        held = (self.values.get(counts_key), self.values.get(actions_key))
        counts, actions = (each if isinstance(each, dict) else {} for each in held)
        total = sum(int(count) for count in counts.values() if count.isdecimal())
        if max(total, len(actions)) <= most:
            return set()
        ends = {action_prefix(tally)[:-1] for tally in counts}
        if len(actions) > total:
            ends |= {name.rpartition(":")[0] for name in map(_without_user, actions)}
        return {_who_key(actions_key, end) for end in ends}


class Ranking:
    """What happens to the who keys of messages whose live actions change."""

    def __init__(self, most: int, passed: frozenset[str]) -> None:
        self._most = most
        self._passed = passed
        self.missing: set[str] = set()
        self.deleted: set[str] = set()
        self.changed: dict[str, dict[str, float | None]] = {}
        """Key → user → score; None for a user who goes."""

    def note(self, actions_key: str, before: Mapping[str, str], after: Mapping[str, str]) -> None:
        """Note the live actions of a message, before and after."""
        was_ranked, is_ranked = len(before) > self._most, len(after) > self._most
        if before == after or not (was_ranked or is_ranked):
            return
        if not is_ranked:
            self.deleted |= {self._key(actions_key, name) for name in before}
            return
        if not was_ranked:
            before = {}
            self.deleted |= {self._key(actions_key, name) for name in after}
        for name in before.keys() | after.keys():
            if before.get(name) != after.get(name):
                *_, user = name.split(":", 2)
                at = float(int(after[name]) - WHO_EPOCH) if name in after else None
                self.changed.setdefault(self._key(actions_key, name), {})[user] = at

    def _key(self, actions_key: str, name: str) -> str:
        type, value, _ = name.split(":", 2)
        key = _who_key(actions_key, f"{type}:{value}")
        if key not in self._passed:
            self.missing.add(key)
        return key


def _without_user(name: str) -> str:
    """Return a field of actions with an empty user."""
    type, value, _ = name.split(":", 2)
    return f"{type}:{value}:"


def _who_key(actions_key: str, tally: str) -> str:
    prefix, _, message = actions_key.rpartition(":")
    return f"{prefix.removesuffix('actions')}who:{message}:{tally}"


def effect_of(name: str, args: Args) -> str:
    """Return the name of what a command does: an apply without a channel saves cursors alone."""
    saves_alone = name == "apply" and int(args[1][6]) == 0
    return "save_cursor" if saves_alone else name


def _bound(stream_id: str) -> tuple[float, float]:
    """Return an end of a range of a stream, as numbers."""
    if stream_id in "-+":
        return (math.inf, 0) if stream_id == "+" else (0, 0)
    is_exclusive = stream_id.startswith("(")
    milliseconds, _, sequence = stream_id.lstrip("(").partition("-")
    return int(milliseconds), int(sequence) + is_exclusive


def _laid_out(
    keys: Sequence[str], texts: Sequence[str]
) -> Iterator[tuple[Sequence[str], str, int, list[tuple[str, str, str, str, str]]]]:
    """Yield each message of an apply: its keys, its timetoken, its newest time, its events."""
    at = 0
    for own in (keys[start : start + 3] for start in range(0, len(keys), 3)):
        message, (newest, tally_count) = texts[at], map(int, texts[at + 1 : at + 3])
        at += 3
        field_count = sum(map(int, texts[at + tally_count : at + 2 * tally_count]))
        parts = []
        for size in (tally_count, tally_count, field_count, field_count):
            parts.append(texts[at : at + size])
            at += size
        tallies = [
            tally for tally, number in zip(*parts[:2], strict=True) for _ in range(int(number))
        ]
        events = [
            (*_read(event), name, tally)
            for tally, name, history in zip(tallies, *parts[2:], strict=True)
            for event in history.split(" ")
        ]
        yield own, message, newest, events


def _read(event: str) -> tuple[str, str, str]:
    """Return the kind, the action timetoken, and the ``removed_through`` of a restoration."""
    timetoken, _, extra = event.lstrip("rpb").partition(",")
    return {"r": "removed", "p": "pruned", "b": "restored"}.get(event[0], "added"), timetoken, extra


def _event(kind: str, timetoken: str, extra: str) -> Event:
    match kind:
        case "added":
            return Added(SOMEBODY, timetoken, timetoken)
        case "removed":
            return Removed(SOMEBODY, timetoken, timetoken)
        case "pruned":
            return Pruned(SOMEBODY, timetoken)
        case _:
            return Restored(SOMEBODY, timetoken, extra)
