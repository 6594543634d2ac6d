"""The script that applies events."""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final

from reaction_tally.keys import RANKED_ABOVE, Keys
from worker.domain.action import Origin
from worker.store.ranking import RankedMessages
from worker.store.redis_errors import redis_errors
from worker.store.script_call import Batch, CursorSave, ScriptCall
from worker.store.scripts import Call, call_script
from worker.store.servers import grouped, is_cluster
from worker.telemetry import metrics

LACKING: Final = 2
"""The parts of the answer of a channel that lacks who keys: an empty text, and these keys."""
_SECONDS: Final = metrics.script.labels("apply")


@dataclass(frozen=True, slots=True)
class Ttls:
    """How long keys live, in seconds.

    A message expires at the age of ``retention_seconds`` (0: never).
    """

    tombstone_seconds: int = 3600
    journal_seconds: int = 86400
    retention_seconds: int = 0


class ApplyScript:
    """Calls ``lua/apply.lua``, and gives it the who keys that it asks for."""

    def __init__(
        self,
        redis: Any,
        keys: Keys,
        ttls: Ttls,
        replicas: int = 0,
    ) -> None:
        """So many ``replicas`` must have what is written."""
        self._replicas = replicas
        self._redis = redis
        self._keys = keys
        self._ttls = ttls
        self._ranked = RankedMessages(keys)

    async def run(
        self,
        batches: Sequence[Batch],
        origin: Origin,
        cursors: Sequence[CursorSave],
        who: frozenset[str] = frozenset(),
    ) -> list[Any]:
        """Return what the script answers. In a cluster it saves no cursor.

        Channels that lack who keys are sent once more, with them and without the cursors.
        They lack others only if another process changed the same message meanwhile.
        """
        passed = who.union(self._ranked.keys_of(batches))
        if is_cluster(self._redis):
            cursors = ()
        answers = await self._send(batches, origin, cursors, passed)
        channels = range(len(batches))
        waiting = [number for number in channels if len(answers[number]) == LACKING]
        if waiting:
            lacking = [key for number in waiting for key in answers[number][1]]
            self._ranked.learn(lacking)
            again = [batches[number] for number in waiting]
            replies = await self.run(again, origin, (), passed.union(lacking))
            for number, reply in zip(waiting, replies, strict=True):
                answers[number] = reply
        return answers

    async def _send(
        self,
        batches: Sequence[Batch],
        origin: Origin,
        cursors: Sequence[CursorSave],
        who: Iterable[str],
    ) -> list[Any]:
        ttls = self._ttls
        options: tuple[str | int, ...] = (
            origin.value,
            ttls.tombstone_seconds,
            ttls.journal_seconds,
            ttls.retention_seconds,
            RANKED_ABOVE,
            int(self._replicas > 0),
        )
        calls: list[Call] = []
        for group in grouped(self._redis, batches):
            own = who if group is batches else self._keys_of(group, who)
            call = ScriptCall(self._keys, options, group, cursors, own)
            calls.append((call.keys, call.args))
        began = time.perf_counter()
        with redis_errors():
            answers = await call_script(self._redis, "apply", *calls, replicas=self._replicas)
        # A call that fails takes no write: alerts count on that.
        _SECONDS.observe(time.perf_counter() - began)
        return list(chain(*answers))

    def _keys_of(self, group: Sequence[Batch], who: Iterable[str]) -> list[str]:
        """Return the who keys of these channels."""
        prefixes = tuple(self._keys.prefix(channel) for channel, _ in group)
        return [key for key in who if key.startswith(prefixes)]
