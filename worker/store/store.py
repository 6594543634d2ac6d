"""The tallies in Redis: applies events, rebuilds counts, deletes what expired."""

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from itertools import compress
from typing import Final

from msgspec import Struct
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from reaction_tally.keys import RANKED_ABOVE, Keys
from worker.domain.action import Origin
from worker.domain.entry import Outcome
from worker.domain.position import Timetoken
from worker.errors import DamagedKeyError, ScriptRefusedError
from worker.store.apply_script import ApplyScript, Ttls
from worker.store.batch import MAX_BATCH, batched
from worker.store.damage import raise_if_damaged
from worker.store.entries import Messages
from worker.store.redis_errors import redis_errors, translated
from worker.store.redis_retry import RedisRetry
from worker.store.script_call import Batch, CursorSave
from worker.store.scripts import Call, call_script
from worker.store.table import retried

OUTCOMES: Final = {
    "a": Outcome.APPLIED,
    "s": Outcome.SUPERSEDED,
    "d": Outcome.DUPLICATE,
    "l": Outcome.LATE,
    "e": Outcome.EARLY,
    "u": Outcome.UNMATCHED,
    "x": Outcome.EXPIRED,
}
"""The letters of ``lua/apply.lua``."""
REBUILD_BATCH: Final = 20
"""Messages that are rebuilt in one round trip. One of 25,000 actions takes Redis some 20 ms.

If who keys of it must be written anew, that is a script of some 100 ms.
"""
EVERY_AGE: Final = -1
"""The retention of a sweep that deletes every message."""
REFUSED: Final = 1
"""The parts of a refused channel's answer: the reason."""


class Applied(Struct, frozen=True, gc=False):
    """What one script call did to a channel, between two journal heads."""

    channel: str
    head_before: str
    head_after: str
    letters: str
    """The outcomes of the events, grouped as in ``ScriptCall``."""
    may_be_unknown: bool
    """Whether its index had no message, or live events changed nothing."""


Results = tuple[list[Applied | ScriptRefusedError], list[int | str]]
"""What one script call did to channels; what it answered to the saves of cursors, if anything."""


def count_outcomes(results: Iterable[Applied]) -> Counter[Outcome]:
    """Return how many events had each outcome."""
    letters = Counter("".join([applied.letters for applied in results]))
    return Counter({OUTCOMES[letter]: count for letter, count in letters.items()})


class Store(Messages):
    """Applies events, rebuilds counts, and deletes expired messages."""

    def __init__(
        self,
        redis: Redis,
        keys: Keys,
        ttls: Ttls | None = None,
        retry: RedisRetry | None = None,
        replicas: int = 0,
    ) -> None:
        """``apply_all`` raises even with a ``retry``; the others wait.

        So many ``replicas`` must have events before they count as applied.
        """
        super().__init__(redis, keys, retry)
        self._ttls = ttls or Ttls()
        self._apply_script = ApplyScript(self._redis, keys, self._ttls, replicas)

    async def apply_all(
        self,
        batches: Sequence[Batch],
        origin: Origin,
        cursors: Sequence[CursorSave] = (),
    ) -> Results:
        """Apply events of several channels in one round trip, and save cursors.

        In a cluster no cursor is saved: it lies on another server.
        They may be ``batch.MAX_BATCH`` events. Each channel is applied by itself.
        A channel that can never be applied is refused, and nothing of it is written.

        Raises:
            RedisUnavailableError: try again. To apply twice is to apply once.
            ScriptRefusedError: the call can never be sent. Nothing is written.
        """
        answers = await self._apply_script.run(batches, origin, cursors)
        count = len(batches)
        channels, saved = answers[:count], answers[count:]
        results: list[Applied | ScriptRefusedError] = []
        for batch, answer in zip(batches, channels, strict=True):
            if len(answer) == REFUSED:
                results.append(await self._refusal(batch, *answer))
            else:
                results.append(Applied(batch[0], *answer))
        return results, saved

    async def _refusal(self, batch: Batch, reason: str) -> ScriptRefusedError:
        """Return why a channel is refused; raise what is no refusal."""
        error = translated(ResponseError(reason))
        if not isinstance(error, ScriptRefusedError):
            raise error
        channel, events = batch
        messages = {event.identity.message_timetoken for event in events}
        try:
            with redis_errors():
                await raise_if_damaged(self._redis, self._keys, channel, messages, str(error))
        except DamagedKeyError as damage:
            return damage
        return error

    @retried
    async def rebuild(
        self,
        channel: str,
        messages: Collection[Timetoken],
    ) -> int:
        """Make the counts of messages what their actions say; index them.

        Return how many messages differed. What differed is journaled.

        Raises:
            ScriptRefusedError: a key has the wrong type.
        """
        rebuilt = 0
        for batch in batched(sorted(messages), REBUILD_BATCH):
            differing = await self._rebuild(channel, batch)
            rebuilt += len(differing)
            while differing:
                differing = await self._rebuild(channel, differing)
        return rebuilt

    async def _rebuild(
        self,
        channel: str,
        messages: Sequence[Timetoken],
    ) -> list[Timetoken]:
        """Return the messages that differed; more of them may be left to write."""
        # The counts still tell which who keys there were.
        await self._rank(channel, messages)
        calls: list[Call] = []
        for message in messages:
            counts, actions, _ = self._keys.message(channel, message)
            keys = [*self._keys.changed(channel), counts, actions]
            args = (self._ttls.journal_seconds, message, MAX_BATCH)
            calls.append((keys, args))
        answers = await call_script(self._redis, "rebuild", *calls)
        return list(compress(messages, answers))

    async def _rank(self, channel: str, messages: Sequence[Timetoken]) -> None:
        """Write or delete the who keys of messages, as far as their sizes are wrong."""
        calls = [self._rank_call(channel, message) for message in messages]
        answers = await call_script(self._redis, "rank", *calls)
        for message, answer in zip(messages, answers, strict=True):
            who: list[str] = []
            lacking = answer
            while lacking:
                who += lacking
                call = self._rank_call(channel, message, who)
                (lacking,) = await call_script(self._redis, "rank", call)

    def _rank_call(
        self,
        channel: str,
        message: Timetoken,
        who: Sequence[str] = (),
    ) -> Call:
        counts, actions, _ = self._keys.message(channel, message)
        return (counts, actions, *who), (message, RANKED_ABOVE)

    @retried
    async def sweep(self, channel: str) -> int:
        """Delete the channel's expired messages; return how many."""
        retention = self._ttls.retention_seconds
        return await self._sweep(channel, retention) if retention else 0

    @retried
    async def clear(self, channel: str) -> int:
        """Delete every message of a channel; return how many."""
        return await self._sweep(channel, EVERY_AGE)

    async def _sweep(self, channel: str, retention_seconds: int) -> int:
        deleted = 0
        async for batch in self.messages(channel):
            deleted += await self._sweep_batch(channel, retention_seconds, sorted(batch))
        return deleted

    async def _sweep_batch(
        self,
        channel: str,
        retention_seconds: int,
        messages: Sequence[Timetoken],
    ) -> int:
        keys = [*self._keys.changed(channel)]
        for message in messages:
            keys += self._keys.message(channel, message)
        options = (self._ttls.journal_seconds, retention_seconds, RANKED_ABOVE)
        args: list[str | int] = [*options, *messages]
        deleted = 0
        count: int
        who: list[str] = []
        while True:
            call = ([*keys, *who], args)
            ((count, who),) = await call_script(self._redis, "sweep", call)
            deleted += count
            if not who:
                return deleted
