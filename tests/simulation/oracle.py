"""What must hold at every step, watched at Redis; and users counted wrongly for a while."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from tests.simulation.keyspace import Applied, Effect, Keyspace, Stream, Watcher
from worker.domain.entry import Outcome
from worker.emulator import Identity, State
from worker.emulator.cache import Message
from worker.source.names import Names
from worker.store.keys import Keys, digest, read_action_field, tally_field
from worker.store.pending_repairs import GapCause

KEYS: Final = Keys()
CHANGED: Final = frozenset({Outcome.APPLIED, Outcome.SUPERSEDED, Outcome.EARLY})

Fact = tuple[str, str, str, str, str]
"""added or removed, channel, message timetoken, field of the action, action timetoken."""


class BrokenError(AssertionError):
    """An invariant does not hold."""


@dataclass(slots=True)
class ExplainedChange:
    """One event that PubNub has delivered, at a position of its stream."""

    position: int
    fact: Fact


@dataclass(slots=True)
class Follower:
    """A reader of one channel's journal, from its beginning."""

    position: str = "0-0"
    counts: dict[tuple[str, str], int] = field(default_factory=dict)
    live: dict[tuple[str, str], str] = field(default_factory=dict)

    def drop(self, message: str) -> None:
        """Drop all that is held of a message."""
        self.counts = {key: held for key, held in self.counts.items() if key[0] != message}
        self.live = {key: held for key, held in self.live.items() if key[0] != message}


@dataclass(slots=True)
class Memory:
    """What an oracle knows of one Redis; it goes back with it."""

    applied: set[Fact] = field(default_factory=set)
    passed: dict[str, int] = field(default_factory=dict)
    """Channel → up to which position of the stream a cursor has passed."""
    followers: dict[str, Follower] = field(default_factory=dict)
    tampered: set[str] = field(default_factory=set)
    """Keys of counts that a hand has made wrong."""


class Oracle(Watcher):
    """Watches every effect on Redis.

    - Each count equals the live entries under it, at every instant; none is zero.
    - A reader of the journal has the counts, at each head. No change comes twice.
    - When a cursor is saved, every event before it is applied, or its channel is owed.
    - Nobody says that Redis went back, if it never did.
    """

    def __init__(self, state: State) -> None:
        self._state = state
        self.keyspace: Keyspace | None = None
        self.memory = Memory()
        self.channels_of: Callable[[Names], Iterable[str]] = lambda names: names.channels
        """Names → the channels they stand for."""
        self.exempt: set[str] = set()
        """Channels that joined and left groups: a cursor does not say when they are followed."""
        self.delivered: dict[str, list[ExplainedChange]] = {}
        self.wrongly: Counter[str] = Counter()
        self.outcomes: Counter[str] = Counter()
        self.broken: list[str] = []
        self.has_gone_back = False

    # --- what PubNub tells -----------------------------------------------------------------------

    def watch(self, state: State) -> None:
        """Note every action event that the stream delivers."""
        deliver = state.stream.deliver

        def heard(channel: str, message: Message) -> None:
            deliver(channel, message)
            if (
                fact := self._pending.pop(message.body, None) or self._known.get(message.body)
            ) is not None:
                self._known[message.body] = fact
                self.delivered.setdefault(channel, []).append(
                    ExplainedChange(message.position, fact)
                )

        self._pending: dict[bytes, Fact] = {}
        self._known: dict[bytes, Fact] = {}
        state.stream.deliver = heard  # type: ignore[method-assign]
        wrap = state.publisher.event_body

        def wrapped(event: str, channel: str, action: Any, published_at: int) -> bytes:
            body = wrap(event, channel, action, published_at)
            self._pending[body] = (event, channel, *_named(action.identity), str(action.timetoken))
            return body

        state.publisher.event_body = wrapped  # type: ignore[method-assign]

    # --- what Redis holds ------------------------------------------------------------------------

    def copied(self) -> Memory:
        """Return what is known of this Redis, to go back with it."""
        memory = self.memory
        followers = {
            name: Follower(each.position, dict(each.counts), dict(each.live))
            for name, each in memory.followers.items()
        }
        tampered = set(memory.tampered)
        return Memory(set(memory.applied), dict(memory.passed), followers, tampered)

    def put_back(self, memory: Memory) -> None:
        """Go back."""
        self.has_gone_back = True
        self.memory = memory
        self.memory = self.copied()

    def tampered(self, channel: str, message: str) -> None:
        """Know that a hand has changed a message: until its rebuild the counts may be wrong."""
        self.memory.tampered.add(KEYS.counts(channel, message))

    def rebuilt(self, keys: Sequence[str], changes: Sequence[str]) -> None:
        """Follow the journal; from here on counts must be right again."""
        *_, counts_key, actions_key = keys
        self.memory.tampered.discard(counts_key)
        self._check_counts(counts_key, actions_key)
        if not changes:
            return
        assert self.keyspace
        channel = _channel(keys[0])
        follower = self.memory.followers.setdefault(channel, Follower())
        self._follow_head(channel, follower, self.keyspace.get(keys[2]))
        for change in changes:
            *_, count, message, prefix = change.split(" ", 5)
            tally = tally_field(*read_action_field(prefix)[:2])
            follower.counts[message, tally] = int(count)
            self._forget_actions(follower, message, self.keyspace.hgetall(actions_key))

    def _forget_actions(self, follower: Follower, message: str, actions: Mapping[str, str]) -> None:
        """Forget the actions of a message that are lost."""
        for place in [*follower.live]:
            if place[0] == message and place[1] not in actions:
                del follower.live[place]

    def applied(self, done: Applied) -> None:
        """Check the touched messages, and follow the journal."""
        channel = _channel(done.keys[0])
        for effect in done.effects:
            self._note(channel, effect)
        for place in range(3, len(done.keys), 3):
            self._check_counts(done.keys[place], done.keys[place + 1])
        self._follow(channel, done)

    def _note(self, channel: str, effect: Effect) -> None:
        self.outcomes[f"{effect.event} {effect.outcome.value}"] += 1
        if effect.event in ("added", "removed"):
            self.memory.applied.add(
                (effect.event, channel, effect.message, effect.field, effect.timetoken)
            )
        elif effect.outcome is Outcome.APPLIED:
            identity = Identity(effect.message, *read_action_field(effect.field))
            lives = self._state.storage.channel(channel).has(identity)
            if effect.event == "restored":
                self.memory.applied.add(
                    ("added", channel, effect.message, effect.field, effect.timetoken)
                )
            if lives == (effect.event == "pruned"):
                stored = self._state.actions(channel)
                is_there = any(
                    a.identity == identity and str(a.timetoken) == effect.timetoken for a in stored
                )
                self.wrongly[effect.event] += is_there == (effect.event == "pruned")

    def _check_counts(self, counts_key: str, actions_key: str) -> None:
        keyspace = self.keyspace
        assert keyspace
        counted = {tally: int(count) for tally, count in keyspace.hgetall(counts_key).items()}
        live: Counter[str] = Counter(
            tally_field(*read_action_field(at)[:2]) for at in keyspace.hgetall(actions_key)
        )
        if counted != live and counts_key not in self.memory.tampered:
            raise BrokenError(f"{counts_key} is {counted}, but live are {dict(live)}")

    def _follow(self, channel: str, done: Applied) -> None:
        if done.head_after == done.head_before:
            return
        assert self.keyspace
        follower = self.memory.followers.setdefault(channel, Follower())
        fields = self._follow_head(channel, follower, done.head_after)
        for number in range(len(fields) - 2):
            self._follow_one(channel, follower, fields[str(number)])

    def _follow_head(self, channel: str, follower: Follower, head: str | None) -> dict[str, str]:
        """Take the follower to the newest entry of the journal; return its fields."""
        assert self.keyspace
        stream: Stream = self.keyspace.look(KEYS.journal(channel), Stream)
        at, fields = stream.entries[-1]
        if at != head or fields["after"] != follower.position:
            raise BrokenError(
                f"the journal of {channel} goes from {fields['after']},"
                f" a follower is at {follower.position}"
            )
        follower.position = at
        return fields

    def _follow_one(self, channel: str, follower: Follower, change: str) -> None:
        event, outcome, timetoken, count, message, action = change.split(" ", 5)
        if event == "expired":
            follower.drop(message)
            return
        place = (message, action)
        live = follower.live.get(place)
        if event in ("added", "restored") and outcome == "applied":
            fits, follower.live[place] = live is None, timetoken
        elif outcome == "superseded":
            fits, follower.live[place] = live is not None and int(live) < int(timetoken), timetoken
        elif outcome == "applied":
            fits = live is not None and (
                int(live) <= int(timetoken) if event == "removed" else live == timetoken
            )
            follower.live.pop(place, None)
        else:
            fits = live is None or int(live) > int(timetoken)
        if not fits and KEYS.counts(channel, message) not in self.memory.tampered:
            raise BrokenError(f"the journal of {channel} tells {change!r}, though {live} was live")
        tally = tally_field(*read_action_field(action)[:2])
        follower.counts[message, tally] = int(count)
        assert self.keyspace
        if event != "removed" or outcome != "early":
            return
        # An early removal changes no count, and says which it is all the same.

    def check_followers(self) -> None:
        """Expect readers of the journals to have what Redis shows."""
        assert self.keyspace
        for channel, follower in self.memory.followers.items():
            for (message, tally), count in follower.counts.items():
                if KEYS.counts(channel, message) in self.memory.tampered:
                    continue
                held = int(self.keyspace.hget(KEYS.counts(channel, message), tally) or 0)
                if held != count:
                    raise BrokenError(
                        f"{channel} {message} {tally}: {held}, a follower says {count}"
                    )

    def owed(self, key: str, cause: str) -> None:
        """Expect no alarm where Redis has lost nothing."""
        if cause == GapCause.REDIS_WENT_BACK and not self.has_gone_back:
            raise BrokenError(f"{key} is owed {cause}, and Redis has lost nothing")

    # --- the cursor rule -------------------------------------------------------------------------

    def cursor_saved(self, key: str, timetoken: str) -> None:
        """Expect everything delivered before the cursor to be applied, or owed."""
        assert self.keyspace
        subscription = key.removeprefix(KEYS.cursor(""))
        registered = (self.keyspace.hget(KEYS.subscriptions, subscription) or "").split("\n")
        if digest(registered) != subscription:
            raise BrokenError(f"nobody knows whom the cursor of {subscription} speaks for")
        for channel in sorted(self.channels_of(Names.read(registered))):
            self._pass(channel, int(timetoken))

    def _pass(self, channel: str, position: int) -> None:
        delivered = self.delivered.get(channel, ())
        passed = self.memory.passed.get(channel, 0)
        if position <= passed or not delivered:
            return
        self.memory.passed[channel] = position
        assert self.keyspace
        if self.keyspace.look(KEYS.owed(channel), dict) or channel in self.exempt:
            return
        if channel not in self.keyspace.smembers(KEYS.channels):
            return  # under a wildcard; it is met, and owed its past, with its next event
        for each in reversed(delivered):
            if each.position <= passed:
                break
            if (
                each.position <= position
                and each.fact not in self.memory.applied
                and self._matters(each.fact)
            ):
                raise BrokenError(
                    f"the cursor passed {each.fact}, which was not applied,"
                    f" and {channel} owes nothing"
                )

    def _matters(self, fact: Fact) -> bool:
        """Tell whether Redis is wrong about this event now."""
        event, channel, message, name, timetoken = fact
        assert self.keyspace
        live = self.keyspace.hget(KEYS.actions(channel, message), name)
        stored = [a for a in self._state.actions(channel) if _named(a.identity) == (message, name)]
        if event == "added":
            return live is None and any(str(action.timetoken) == timetoken for action in stored)
        return live == timetoken and not stored


def _channel(messages_key: str) -> str:
    return messages_key.partition("{")[2].rpartition("}")[0]


def _named(identity: Identity) -> tuple[str, str]:
    return identity.message_timetoken, f"{identity.type}:{identity.value}:{identity.uuid}"


def lines_of(found: Sequence[str], most: int = 12) -> str:
    """Return some lines as text."""
    return "\n".join(
        [*found[:most], *([f"… and {len(found) - most} more"] if len(found) > most else [])]
    )
