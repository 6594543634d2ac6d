"""One history that leaves every kind of key, field and change in Redis.

It ends with a kill in the midst of repairs. All workers and commands are of one release.
"""

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final, cast

from tests.processes import Child
from tests.releases import Environment
from tests.waiting import wait_until
from tests.worlds import KEYS, MESSAGE, ROOM, World, envelope
from worker.errors import ExitCode

LARGE: Final = "large"
"""Its message has more than 128 actions."""
STRANGE: Final = "h{a}l%l.😀"
"""A channel whose name is encoded in keys."""
UNDER_WILDCARD: Final = "news.today"
IN_GROUP: Final = "club-room"
MALLORY: Final = "mallory"
"""A user who asks to be forgotten."""
GONE: Final = "gone"
"""A channel that ``tally forget`` deletes."""
LONG: Final = "long"
"""Its backfill is under way at the end."""
HALL: Final = "hall"
"""A look at all of it is under way at the end."""
ALONE: Final = "17600000001728000"
"""A message whose reactions all go."""

TEXTS: Final = (
    "a:b%3A{c}",
    "%",
    ":",
    "two\nlines",
    "nul\x00nul",
    '"quoted" \\ [x] *?',
    "👩‍👩‍👧‍👦",
    "\u202eback\u2028line",
    "ü" * 50,
    " ",
)
"""They are types, values and users."""
CHANNELS: Final = (ROOM, LARGE, STRANGE, "news.*")
SETTINGS: Final = {
    "TALLY_CHANNELS": ",".join(CHANNELS),
    "TALLY_CHANNEL_GROUPS": "club",
    "TALLY_SETTLE_SECONDS": "0.5",
    "TALLY_RECONCILE_SECONDS": "4",
    "TALLY_HISTORY_RATE": "1000",
    "TALLY_LOG_FORMAT": "json",
}
AT_THE_END: Final = SETTINGS | {
    "TALLY_CHANNELS": ",".join([*CHANNELS, LONG, HALL]),
    "TALLY_HISTORY_RATE": "2",
}
SMALL_PIECES: Final = (sys.executable, str(Path(__file__).with_name("small_pieces.py")))


class History:
    """The history in one world, by one release."""

    def __init__(self, world: World, release: Environment) -> None:
        self._world = world
        self._state = world.state
        self._redis = cast("Any", world.redis)
        world.settings |= SETTINGS | release

    async def play(self) -> None:
        """Let it happen."""
        self._past()
        worker = await self._world.follow()
        await self._is_repaired(worker)
        await self._events(worker)
        forgetting = self._world.start("users", "forget", "--yes", MALLORY)
        await self._forget_channel()
        assert await forgetting.ended() == ExitCode.DONE, forgetting.tail()
        self._takes_back(ROOM, MALLORY)
        await wait_until(lambda: self._redis.exists(KEYS.round), what=worker.tail)
        assert await worker.stopped() == ExitCode.DONE, worker.tail()
        await self._losses()
        await self._kill_in_the_midst()

    def _past(self) -> None:
        """Let users react before the first worker."""
        world, state = self._world, self._state
        state.groups.add("club", [IN_GROUP])
        world.add_past(130, "👍", LARGE)
        world.add_past(3, "🎉", LARGE)
        for channel in (ROOM, STRANGE, IN_GROUP):
            world.add_past(3, "🕰", channel)

    async def _events(self, worker: Child) -> None:
        """Let a worker count everything that an event can say."""
        world, state = self._world, self._state
        for text in TEXTS:
            state.add(STRANGE, MESSAGE, text, text, text)
        for number, channel in enumerate((UNDER_WILDCARD, IN_GROUP, LARGE)):
            world.react("👍", f"ben-{number}", channel)
        world.take_back(world.react("❤", "ana"))
        again = world.react("🔁", "ana")
        await world.settles()
        world.take_back(again, published=False)
        world.react("🔁", "ana")
        alone = state.add(ROOM, ALONE, "receipt", "read", "ana").actions[-1].timetoken
        await world.settles()
        state.remove(ROOM, ALONE, alone, "ana")
        unknown = alone - 1_000_000
        world.deliver("removed", "never added", "ana", unknown)
        state.inject(ROOM, envelope(i="eve", data={"actionTimetoken": "soon"}))
        strange = {"value": "two\nlines", "actionTimetoken": "later"}
        state.inject(ROOM, envelope(i="eve", data=strange))
        world.react("🏁", "ana")
        await world.settles()
        # Alone in its entry of the journal, which is deleted with her.
        world.react("😈", MALLORY)
        await world.settles()
        await self._is_repaired(worker)

    async def _forget_channel(self) -> None:
        """Count a channel that nobody follows, and forget it."""
        world = self._world
        world.add_past(2, channel=GONE)
        await self._does("backfill", GONE)
        await self._does("forget", GONE, "--yes")
        for number in range(2):
            self._takes_back(GONE, f"old-{number}")

    def _takes_back(self, channel: str, uuid: str) -> None:
        """Let a user take everything back, of which no event tells."""
        for action in self._state.actions(channel):
            if action.identity.uuid == uuid:
                message, at = action.identity.message_timetoken, action.timetoken
                self._state.remove(channel, message, at, uuid, published=False)

    async def _losses(self) -> None:
        """Lose what a reconcile must find: a removal, an addition, a count, a wrong removal."""
        world = self._world
        _, first, *_ = self._state.actions(ROOM)
        world.take_back(first.timetoken, first.identity.uuid, published=False)
        world.react("lost", "ana", published=False)
        await self._redis.hset(KEYS.counts(LARGE, MESSAGE), "reaction:🎉", "7")
        wrong = next(it for it in self._state.actions(ROOM) if it.identity.value == "🔁")
        worker = await world.follow()
        world.deliver("removed", "🔁", "ana", wrong.timetoken)
        change = f"removed applied {wrong.timetoken} "

        async def is_counted() -> bool:
            entries = await self._redis.xrange(KEYS.journal(ROOM))
            changes = [value for _, fields in entries for value in fields.values()]
            return any(value.startswith(change) for value in changes)

        await wait_until(is_counted, what=worker.tail)
        assert await worker.stopped() == ExitCode.DONE, worker.tail()
        await wait_until(self._reconciled)

    async def _reconciled(self) -> bool:
        await self._does("reconcile", codes=(ExitCode.DONE, ExitCode.DIFFERENCES))
        return await self._world.is_exact() and await self._world.owes_nothing()

    async def _kill_in_the_midst(self) -> None:
        """Let two channels join that have a long past, and kill the worker that reads it."""
        world = self._world
        world.fill(1000, channel=LONG, messages=10)
        world.fill(8, channel=HALL, messages=8)
        world.wrapper = SMALL_PIECES
        worker = world.start("run", **AT_THE_END)
        world.wrapper = ()

        async def is_midst() -> bool:
            backfill = await self._redis.hgetall(KEYS.progress(LONG))
            look = await self._redis.hgetall(KEYS.progress(HALL))
            assert worker.is_alive, worker.tail()
            return int(backfill.get("actions", 0)) > 0 and bool(look.get("look_next"))

        await wait_until(is_midst, what=worker.tail)
        await worker.killed()

    async def _is_repaired(self, worker: Child) -> None:
        await wait_until(self._world.owes_nothing, what=worker.tail)
        await self._world.settles()

    async def _does(self, *arguments: str, codes: Iterable[int] = (0,)) -> None:
        command = await self._world.do(*arguments)
        assert command.process.returncode in codes, command.tail()
