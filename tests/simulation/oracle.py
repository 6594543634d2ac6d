"""What must hold at every step, watched at Redis; and users counted wrongly for a while."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from reaction_tally.keys import RANKED_ABOVE, WHO_EPOCH, Keys, read_action_field, tally_field
from tests.simulation.keyspace import Applied, Effect, Keyspace, Stream, Watcher
from tests.simulation.notes import Notes
from worker.domain.entry import Outcome
from worker.emulator import Identity, Page, State, Window
from worker.emulator.cache import Message
from worker.source.names import Names
from worker.store.cursors import digest
from worker.store.pending_repairs import GapCause

KEYS: Final = Keys()
DAY_SECONDS: Final = 86_400.0
CACHE_SECONDS: Final = 600.0
"""An outage of more is a gap."""
PRUNE_LIMIT: Final = 0.2
LAG_TICKS: Final = 10 * 10_000_000
"""What is newer may be missing in an honest list."""
ALL: Final = ""
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
    covered_at: dict[str, float] = field(default_factory=dict)
    """Channel → when a cursor that covers it was saved last."""
    followers: dict[str, Follower] = field(default_factory=dict)
    tampered: set[str] = field(default_factory=set)
    """Keys of counts that a hand has made wrong."""
    pruned: list[tuple[float, str, Identity]] = field(default_factory=list)
    """What was pruned though it is there: when, of which channel."""


class Oracle(Watcher):
    """Watches every effect on Redis.

    - Each count equals the live entries under it, at every instant; none is zero.
    - A reader of the journal has the counts, at each head. No change comes twice.
    - When a cursor is saved, every event before it is applied, or its channel is owed.
    - Nobody says that Redis went back, if it never did.
    """

    def __init__(self, state: State, notes: Notes) -> None:
        self._state = state
        self._notes = notes
        self.keyspace: Keyspace | None = None
        self.memory = Memory()
        self.channels_of: Callable[[Names], Iterable[str]] = lambda names: names.channels
        """Names → the channels they stand for."""
        self.exempt: set[str] = set()
        """Channels that joined and left groups: a cursor does not say when they are followed."""
        self.delivered: dict[str, list[ExplainedChange]] = {}
        self.wrongly: Counter[str] = Counter()
        self._wrongly_pruned: set[tuple[str, Identity]] = set()
        self.expects: frozenset[str] = frozenset()
        """The faults of this history: some of them have an expectation of their own."""
        self.prune_floor = 20
        self.ranked_above = RANKED_ABOVE
        self._damaged: set[str] = set()
        """Keys of actions of messages that a hand has ever changed."""
        self.wrong_since: float | None = None
        """Since when PubNub's origin is a wrong one."""
        self._lied_at: dict[str, float] = {}
        """Channel → when PubNub last listed too little of it; of ``ALL`` with a wrong origin."""
        self._unregistered: dict[str, float] = {}
        """Subscription with a cursor and without names → since when."""
        self.outcomes: Counter[str] = Counter()
        self.broken: list[str] = []
        self.has_gone_back = False
        self.has_clock_gone_back = False
        self.has_hidden_outage = False
        """Whether a cursor looked younger than it was, because Redis's clock went back."""

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

    def watch_lists(self, state: State) -> None:
        """Note when a list lacks what it should have."""
        storage, listed_page = state.storage, state.page

        def page(channel: str, window: Window) -> Page:
            page = listed_page(channel, window)
            listed = set(page.actions)
            oldest = page.more or 0
            settled = state.time.now() - LAG_TICKS
            for action in storage.channel(channel).within(window.ticks, window.limit):
                if oldest <= action.timetoken < settled and action not in listed:
                    self.lies(channel)
            return page

        state.page = page

    def lies(self, channel: str = ALL) -> None:
        """Note that a list lies now."""
        self._lied_at[channel] = self._notes.now()

    # --- what Redis holds ------------------------------------------------------------------------

    def copied(self) -> Memory:
        """Return what is known of this Redis, to go back with it."""
        memory = self.memory
        followers = {
            name: Follower(each.position, dict(each.counts), dict(each.live))
            for name, each in memory.followers.items()
        }
        return Memory(
            set(memory.applied),
            dict(memory.passed),
            dict(memory.covered_at),
            followers,
            set(memory.tampered),
            list(memory.pruned),
        )

    def put_back(self, memory: Memory) -> None:
        """Go back."""
        self.has_gone_back = True
        self.memory = memory
        self.memory = self.copied()

    def tampered(self, channel: str, message: str) -> None:
        """Know that a hand has changed a message: until its rebuild the counts may be wrong."""
        self.memory.tampered.add(KEYS.counts(channel, message))
        self._damaged.add(KEYS.actions(channel, message))

    def is_tampered(self, key: str) -> bool:
        """Tell whether a key belongs to a message that a hand has changed."""
        where = KEYS.read_message(key)
        return where is not None and KEYS.counts(*where) in self.memory.tampered

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
        """Check the counts, and follow the journal."""
        channel = _channel(done.keys[0])
        for effect in done.effects:
            self._note(channel, effect)
        for place in range(3, len(done.keys), 3):
            self._check_counts(done.keys[place], done.keys[place + 1])
            self._check_who(done.keys[place + 1])
        self._follow(channel, done)

    def _note(self, channel: str, effect: Effect) -> None:
        self.outcomes[f"{effect.event} {effect.outcome.value}"] += 1
        self._reach(channel, effect)
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
                if is_there and effect.event == "pruned":
                    self._wrongly_pruned.add((channel, identity))
                    self._check_prune(channel, identity)

    def _check_prune(self, channel: str, identity: Identity) -> None:
        """Expect no more wrong prunes than the limit, and none on the word of a wrong origin."""
        now, since = self._notes.now(), self.wrong_since
        pruned = self.memory.pruned
        pruned.append((now, channel, identity))
        lately = {each for at, of, each in pruned if of == channel and at > now - DAY_SECONDS}
        ever = {(message, name) for _, of, message, name, _ in self.memory.applied if of == channel}
        is_too_many = len(lately) > max(self.prune_floor, PRUNE_LIMIT * len(ever))
        if "unlisted" in self.expects and is_too_many:
            raise BrokenError(
                f"{len(lately)} of {len(ever)} entries of {channel} were pruned wrongly in a day"
            )
        looks = list(self._notes.looks(channel))
        if "origin" not in self.expects or since is None or not looks:
            return
        if all(look.begun >= since for look in looks):
            raise BrokenError(f"{channel} was pruned on the word of a wrong origin")

    def repaid(self, key: str) -> None:
        """Expect nothing of the past of a channel that was compared with a list that lied."""
        channel = _channel(key)
        lied_at = max(self._lied_at.get(channel, 0.0), self._lied_at.get(ALL, 0.0))
        if lied_at >= self._notes.look_began(channel):
            delivered = self.delivered.get(channel, ())
            self.memory.passed[channel] = max((each.position for each in delivered), default=0)

    def _reach(self, channel: str, effect: Effect) -> None:
        """Note an interesting outcome."""
        note, outcome = self._notes.note, effect.outcome
        match effect.event, outcome:
            case "added", Outcome.SUPERSEDED:
                note("an addition superseded")
            case "removed", Outcome.EARLY:
                note("a removal before its addition")
            case "restored", Outcome.APPLIED:
                note("an action restored")
            case "added", Outcome.LATE:
                assert self.keyspace
                key = KEYS.actions(channel, effect.message)
                if self.keyspace.hget(key, effect.field) is None:
                    note("an addition barred by a tombstone")
        if outcome is Outcome.APPLIED and effect.event in ("added", "restored"):
            entry = channel, Identity(effect.message, *read_action_field(effect.field))
            if entry in self._wrongly_pruned:
                self._wrongly_pruned.discard(entry)
                note("a prune undone by a later look")

    def _check_counts(self, counts_key: str, actions_key: str) -> None:
        keyspace = self.keyspace
        assert keyspace
        counted = {tally: int(count) for tally, count in keyspace.hgetall(counts_key).items()}
        live: Counter[str] = Counter(
            tally_field(*read_action_field(at)[:2]) for at in keyspace.hgetall(actions_key)
        )
        if counted != live and counts_key not in self.memory.tampered:
            raise BrokenError(f"{counts_key} is {counted}, but live are {dict(live)}")

    def _check_who(self, actions_key: str, *, is_whole: bool = False) -> None:
        """Expect the users of each tally that readers would believe to be those who are live.

        The sets may be partial after a hand's change, until a look rebuilds them.
        """
        keyspace = self.keyspace
        where = KEYS.read_message(actions_key)
        assert keyspace
        assert where
        actions = keyspace.hgetall(actions_key)
        users: dict[str, dict[str, float]] = {}
        for name, at in actions.items():
            type, value, user = read_action_field(name)
            own = users.setdefault(tally_field(type, value), {})
            own[user] = float(int(at) - WHO_EPOCH)
        is_ranked = len(actions) > self.ranked_above
        is_damaged = actions_key in self._damaged
        for tally, live in users.items():
            held = keyspace.values.get(KEYS.who(*where, tally))
            is_right = held == (live if is_ranked else None)
            is_doubted = is_damaged and not (
                is_ranked and (is_whole or (isinstance(held, dict) and len(held) == len(live)))
            )
            if not is_right and not is_doubted:
                raise BrokenError(f"{KEYS.who(*where, tally)} is {held}, but live are {live}")

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
        is_alarm = cause == GapCause.REDIS_WENT_BACK
        if is_alarm and not (self.has_gone_back or self.exempt):
            raise BrokenError(f"{key} is owed {cause}, and Redis has lost nothing")

    def check_everything(self) -> None:
        """Expect all counts to equal their entries, also where a hand changed them."""
        self.memory.tampered.clear()
        assert self.keyspace
        if not self.keyspace.hgetall(KEYS.meta):
            raise BrokenError("nobody has claimed the namespace again")
        for key in list(self.keyspace.values):
            if where := KEYS.read_message(key):
                counts_key, actions_key, _ = KEYS.message(*where)
                self._check_counts(counts_key, actions_key)
                self._check_who(actions_key, is_whole=True)
        self.check_followers()

    # --- the cursor rule -------------------------------------------------------------------------

    def cursor_saved(self, key: str, timetoken: str) -> None:
        """Expect everything delivered before the cursor to be applied, or owed."""
        assert self.keyspace
        subscription = key.removeprefix(KEYS.cursor(""))
        registered = (self.keyspace.hget(KEYS.subscriptions, subscription) or "").split("\n")
        if digest(registered) != subscription:
            self._expect_names_soon(subscription)
            return
        self._unregistered.pop(subscription, None)
        for channel in sorted(self.channels_of(Names.read(registered))):
            self._pass(channel, int(timetoken))

    def _expect_names_soon(self, subscription: str) -> None:
        """Expect a cursor whose names were forgotten, a day old, to get them again."""
        now = self._notes.now()
        if self._unregistered.setdefault(subscription, now) < now - DAY_SECONDS / 24:
            raise BrokenError(f"nobody knows whom the cursor of {subscription} speaks for")

    def _pass(self, channel: str, position: int) -> None:
        is_hidden = self._is_hidden(channel)
        delivered = self.delivered.get(channel, ())
        passed = self.memory.passed.get(channel, 0)
        if position <= passed or not delivered:
            return
        self.memory.passed[channel] = position
        assert self.keyspace
        if is_hidden or channel in self.exempt:
            return
        if self.keyspace.look(KEYS.owed(channel), dict):
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

    def _is_hidden(self, channel: str) -> bool:
        """Tell whether a clock that went back may have hidden an outage, and note the time."""
        now, covered_at = self._notes.now(), self.memory.covered_at
        is_long = now - covered_at.get(channel, now) > CACHE_SECONDS
        covered_at[channel] = now
        is_hidden = is_long and self.has_clock_gone_back
        self.has_hidden_outage = self.has_hidden_outage or is_hidden
        return is_hidden

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
