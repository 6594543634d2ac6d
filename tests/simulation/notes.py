"""Notes of one history: which interesting states it reached, seen from outside the worker.

Commands that reach Redis, requests that PubNub answers, entries of the log, and what is done to the
world. ``sometimes.py`` lists the states.
"""

from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from reaction_tally.keys import Keys
from tests.simulation.machine import Machine
from worker.emulator.replies import Reply
from worker.store.pending_repairs import GapCause

KEYS: Final = Keys()
EMPTY_PAGE: Final = b'"data":[]}'
STILL_SECONDS: Final = 1.0
"""A look that asks for nothing for so long, at the end of the list, waits for its second pass."""
FORGOTTEN_SECONDS: Final = 900.0
"""A look that asks for nothing for so long has failed."""
STARTS: Final = 10
STARTS_SECONDS: Final = 120.0
NO_GAPS: Final = frozenset({GapCause.UNPROVEN, GapCause.REDIS_WENT_BACK})
"""Marks of which no cursor follows."""
LOGGED: Final[Mapping[str, str]] = {
    "answer_dropped": "an answer dropped",
    "page_dropped": "a page dropped",
    "redis_restarted": "Redis restarted, and nothing is lost",
    "redis_went_back": "Redis went back",
    "round_starts": "a round in a history",
    "subscription_halved": "a subscription halved",
}
"""Events of the log that are states already."""


@dataclass(slots=True, eq=False)
class Look:
    """A comparison of a channel with PubNub's list, from its start to its end."""

    machine: Machine
    channel: str
    begun: float
    heard_at: float
    """When it got its newest answer, or began."""
    is_at_the_end: bool = False
    """Whether the newest answer was the end of the list."""
    asking: int = 0


class Notes:
    """What one history reached."""

    def __init__(self, now: Callable[[], float]) -> None:
        self.reached: Counter[str] = Counter()
        self.now = now
        self._looks: dict[tuple[Machine, str], Look] = {}
        self._marked: dict[Machine, float] = {}
        """The machines that have marked a gap, and not yet saved the cursor behind it."""
        self._replaying: set[tuple[Machine, str]] = set()
        self._saved_looks: dict[str, float] = {}
        """Channel with a look that goes on after a restart → when it began."""
        self._cut_short: set[tuple[str, str]] = set()
        """What a kill interrupted: a verb and a channel."""
        self.refused: dict[str, float] = {}
        """Channel → when its newest look was refused by a limit; a person has to decide."""
        self._waiting_until: dict[Machine, float] = {}
        self._starts: dict[str, deque[float]] = {}

    def note(self, state: str) -> None:
        """Note that a state is reached."""
        self.reached[state] += 1

    @property
    def is_between_mark_and_cursor(self) -> bool:
        """Whether a machine has marked a gap, and not yet saved the cursor behind it."""
        return any(not machine.is_dead for machine in self._marked)

    def looks(self, channel: str | None = None, machine: Machine | None = None) -> Iterator[Look]:
        """Yield the looks that go on, of one channel or machine or of all."""
        oldest = self.now() - FORGOTTEN_SECONDS
        for look in self._looks.values():
            if (
                channel in {None, look.channel}
                and machine in {None, look.machine}
                and (look.asking or look.heard_at > oldest)
                and not look.machine.is_dead
            ):
                yield look

    def look_began(self, channel: str) -> float:
        """Return when the oldest look that goes on began."""
        begun = [look.begun for look in self.looks(channel)]
        return min(begun, default=self.now() - FORGOTTEN_SECONDS)

    # --- the log ---------------------------------------------------------------------------------

    def log(self, machine: Machine, event: str, facts: Mapping[str, Any]) -> None:
        """Note an entry of a worker's log."""
        if state := LOGGED.get(event):
            self.note(state)
        if handle := getattr(self, f"_{event}", None):
            handle(machine, facts.get("channel"), facts)

    def _reconcile_starts(self, machine: Machine, channel: str, _facts: object) -> None:
        if any(look.machine is not machine for look in self.looks(channel)):
            self.note("two workers look at one channel")
        if ("look", channel) in self._cut_short:
            self._cut_short.discard(("look", channel))
            resumes = channel in self._saved_looks
            self.note(
                "a look resumed after a kill" if resumes else "a look begun again after a kill"
            )
        begun = self._saved_looks.get(channel, self.now())
        self._looks[machine, channel] = Look(machine, channel, begun, self.now())

    def _reconcile_ends(self, machine: Machine, channel: str, facts: Mapping[str, Any]) -> None:
        self._looks.pop((machine, channel), None)
        self.refused.pop(channel, None)
        if facts["refused"]:
            self.refused[channel] = self.now()
            self.note("the limit refuses" if facts["listed"] else "the origin refuses")
        if facts["unproven"]:
            self.note("a look that could not prove something")
        if facts["rebuilt"]:
            self.note("wrong counts repaired")
        if facts["pruned"]:
            self.note("a look that pruned")
        if facts["entries"] > 1 and not facts["listed"]:
            self.note("a look that shows nothing, of many entries")

    def _backfill_starts(self, machine: Machine, channel: str, _facts: object) -> None:
        self._replaying.add((machine, channel))

    def _backfill_resumes(self, machine: Machine, channel: str, facts: object) -> None:
        if ("backfill", channel) in self._cut_short:
            self._cut_short.discard(("backfill", channel))
            self.note("a backfill resumed after a kill")
        self._backfill_starts(machine, channel, facts)

    def _backfill_ends(self, machine: Machine, channel: str, _facts: object) -> None:
        self._replaying.discard((machine, channel))

    # --- Redis -----------------------------------------------------------------------------------

    def command(
        self,
        machine: Machine,
        name: str,
        args: Sequence[Any],
        options: Mapping[str, Any],
        result: Any,
    ) -> None:
        """Note a command or script that Redis has done or refused."""
        if isinstance(result, Exception):
            self._refused(machine, name, str(result))
        elif name == "owe":
            self._marks(machine, args[0][0], args[1][0])
        elif name in {"apply", "save_cursor"}:
            self._has_applied(machine, int(args[1][6]), result)
        elif name == "hset" and "look_next" in options.get("mapping", ()):
            channel = _channel(args[0])
            self._saved_looks.setdefault(channel, self.look_began(channel))
        elif name == "hdel" and "look_next" in args:
            self._saved_looks.pop(_channel(args[0]), None)
        elif name == "take_budget":
            self._waiting_until[machine] = self.now() + result / 1_000_000

    def _has_applied(self, machine: Machine, channels: int, answers: Sequence[Any]) -> None:
        """Note channels that were refused, and cursors that were saved."""
        for answer in answers[:channels]:
            if len(answer) == 1:
                self._refused(machine, "apply", answer[0])
        if len(answers) > channels:
            self._marked.pop(machine, None)

    def _refused(self, machine: Machine, name: str, reason: str) -> None:
        is_looking = any(self.looks(machine=machine))
        if reason.startswith("WRONGTYPE"):
            self.note("a key of the wrong type met")
        elif reason.startswith("NOPERM") and "xadd" in reason and name == "apply":
            self.note("a journal entry refused")
        elif reason.startswith("NOPERM") and is_looking:
            self.note("Redis refuses a command during a look")
        elif "maxmemory" in reason and is_looking:
            self.note("Redis full during a look")

    def _marks(self, machine: Machine, key: str, cause: str) -> None:
        if cause in NO_GAPS:
            return
        self._marked[machine] = self.now()
        channel = _channel(key)
        self._between_passes("a gap", channel=channel)
        if any(self.looks(channel)):
            is_overflow = cause == GapCause.OVERFLOW
            self.note("an overflow during a look" if is_overflow else "a gap during a look")

    def unreachable(self, machine: Machine) -> None:
        """Note a command that found no Redis."""
        if any(self.looks(machine=machine)):
            self.note("Redis away during a look")

    # --- PubNub ----------------------------------------------------------------------------------

    def asks(self, machine: Machine, channel: str) -> None:
        """Note that a page of a channel's list is asked for."""
        if look := self._looks.get((machine, channel)):
            look.asking += 1

    def answered(self, machine: Machine, channel: str, reply: Reply | None) -> None:
        """Note the answer; None if nobody waits for it any more."""
        if (look := self._looks.get((machine, channel))) is None:
            return
        look.asking = max(0, look.asking - 1)
        look.heard_at = self.now()
        if reply is None:
            return
        look.is_at_the_end = reply.status == 200 and reply.body.endswith(EMPTY_PAGE)
        if reply.status in {403, 429}:
            self.note(f"a {reply.status} during a look")

    # --- what is done to the world ---------------------------------------------------------------

    def starts(self, machine: Machine) -> None:
        """Note that a worker starts."""
        begun = self._starts.setdefault(machine.name, deque(maxlen=STARTS))
        begun.append(self.now())
        if len(begun) == STARTS and begun[-1] - begun[0] < STARTS_SECONDS:
            self.note("ten starts within two minutes")

    def killed(self, machine: Machine) -> None:
        """Note that a worker is about to be killed."""
        for look in self.looks(machine=machine):
            self.note("a kill during a look")
            self._cut_short.add(("look", look.channel))
        self._between_passes("a kill", machine)
        for each, channel in self._replaying:
            if each is machine:
                self._cut_short.add(("backfill", channel))
        if machine in self._marked:
            self.note("a kill between mark and cursor")

    def stopped(self, machine: Machine) -> None:
        """Note that a worker is about to be stopped."""
        self._between_passes("a stop", machine)

    def suspended(self, machine: Machine) -> None:
        """Note that a worker's machine is about to sleep."""
        self._between_passes("a suspension", machine)

    def reloaded(self, machine: Machine, *, is_early: bool) -> None:
        """Note that a worker got a SIGHUP; early is before it polls."""
        if is_early:
            self.note("SIGHUP before the first poll")
        elif any(self.looks(machine=machine)):
            self.note("names change during a look")

    def went_back(self) -> None:
        """Note that Redis forgets something."""
        self._between_passes("a failover")
        if self.is_between_mark_and_cursor:
            self.note("a failover between mark and cursor")

    def stepped(self) -> None:
        """Note that Redis's clock steps."""
        now = self.now()
        if any(until > now for until in self._waiting_until.values()):
            self.note("a clock step during a budget wait")

    def _between_passes(
        self, event: str, machine: Machine | None = None, channel: str | None = None
    ) -> None:
        before = self.now() - STILL_SECONDS
        for look in self.looks(channel, machine):
            if look.is_at_the_end and not look.asking and look.heard_at < before:
                self.note(f"{event} between the passes")


def _channel(key: str) -> str:
    return key.partition("{")[2].rpartition("}")[0]
