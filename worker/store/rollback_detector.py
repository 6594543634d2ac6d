"""Notices that Redis may have gone back: a restart, a failover, a restored copy."""

from typing import Any, Final

from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ResponseError

from reaction_tally.journal import START, stream_order
from worker.errors import RedisReplacedError
from worker.store.acknowledged import Acknowledged
from worker.store.redis_errors import ServerReplacedError

MOST_RETURNS: Final = 3
"""So often in a row an earlier run may return with everything it should have.

Then ``run_id`` differs from connection to connection, and is no sign.
"""


class RollbackDetector:
    """The signs that Redis lacks what it has acknowledged to this process."""

    def __init__(self) -> None:
        self.acknowledged = Acknowledged()
        self.generation = 0
        """How often Redis was accepted as older than it was."""
        self.is_suspect = False
        """From the first sign until ``trust`` or ``accept``."""
        self.loss = ""
        """What is known to be lost: then nothing is proven."""
        self.ignores_runs = False
        """Whether ``run_id`` is no sign."""
        self.epoch = 0
        """Grows when what was read before may be lost.

        In a cluster that is each comparison; on one server, each loss.
        """
        self.server = ""
        """Host and port of the server that a connection led to last, or its Unix socket."""
        self.layout = ""
        """How a cluster's slots were shared out, read before signs that were trusted."""
        self._run_id: str | None = None
        self._earlier_runs: set[str | None] = set()
        self._returns = 0

    def expect_shards(self) -> None:
        """Expect a cluster: its runs are the signs of all shards."""
        self.acknowledged.is_cluster = True

    @property
    def is_cluster(self) -> bool:
        """Whether Redis is a cluster."""
        return self.acknowledged.is_cluster

    @property
    def signs(self) -> str:
        """The signs of a cluster's shards that are trusted."""
        return (self._run_id or "") if self.is_cluster else ""

    @property
    def signs_to_save(self) -> str:
        """What a cursor is saved with: the trusted signs, and the layout of the slots."""
        return f"{self.signs} {self.layout}".strip()

    def check_epoch(self, epoch: int) -> None:
        """Refuse a cluster's answer to what was sent in this epoch, if the epoch has ended.

        Raises:
            RedisReplacedError: a shard has changed meanwhile. It may have lost
                what the answer says.
        """
        if not self.is_cluster:
            return
        if self.is_suspect or self.epoch != epoch:
            raise RedisReplacedError("a shard of the cluster has changed meanwhile")

    def begin_comparison(self) -> None:
        """Begin a comparison: no mark counts as taken back, so all are written again."""
        self.acknowledged.taken_back.clear()

    async def check_server(self, connection: AbstractConnection) -> None:
        """Begin a connection: redis-py's ``redis_connect_func``.

        Raises:
            ServerReplacedError: another server answers than before,
                or it was restarted. It must be compared before a write.
        """
        # A failed health check connects again, and would come here again, without end.
        await connection.on_connect_check_health(check_health=False)
        self.server = _place_of(connection)
        if not self.ignores_runs:
            self.meet(await _run_id_of(connection))
        if self.is_suspect:
            raise ServerReplacedError("another server may answer than before")

    def meet(self, run_id: str | None) -> None:
        """Note which run answers. Another one than before is a sign."""
        self._run_id = self._run_id or run_id
        if run_id and run_id != self._run_id:
            self.is_suspect = True

    def newest_head(self, channel: str) -> str:
        """Return the newest journal head that was seen."""
        return self.acknowledged.heads.get(channel, START)

    def observe(self, channel: str, known: str, before: str, after: str) -> bool:
        """Note the journal heads that an apply answered.

        ``known`` was the newest head when it was sent.
        Returns False if Redis no longer held that head.
        """
        if before != known and stream_order(before) < stream_order(known):
            self.suspect(f"the journal of {channel!r} went back from {known} to {before}")
            return False
        self.acknowledged.note_head(channel, after, before)
        return True

    def suspect(self, reason: str) -> None:
        """Note that Redis lacks something."""
        self.loss = self.loss or reason
        self.is_suspect = True

    def trust(self, run_id: str | None) -> bool:
        """Trust a server that has all that was acknowledged.

        Returns whether its run is a new one.
        """
        is_new = False
        if not self.is_current(run_id):
            is_new = run_id not in self._earlier_runs
            self._returns = 0 if is_new else self._returns + 1
        self.ignores_runs = self._returns >= MOST_RETURNS
        if self.is_cluster:
            # What others wrote may have been read, and nobody has compared that.
            self.epoch += 1
        self._continue_with(run_id)
        return is_new

    def is_current(self, run_id: str | None) -> bool:
        """Tell whether this run was trusted last."""
        return run_id == self._run_id

    def accept(self, run_id: str | None) -> None:
        """Accept this server as it is; forget the positions seen before."""
        self.acknowledged.forget_positions()
        self.generation += 1
        self.epoch += 1
        self._returns = 0
        self._continue_with(run_id)

    def _continue_with(self, run_id: str | None) -> None:
        self._earlier_runs.add(self._run_id)
        self._run_id = run_id
        self.is_suspect = False
        self.loss = ""


def _place_of(connection: Any) -> str:
    pieces = dict(connection.repr_pieces())
    return pieces.get("path") or f"{pieces['host']}:{pieces['port']}"


async def _run_id_of(connection: AbstractConnection) -> str | None:
    await connection.send_command("INFO", "server", check_health=False)
    try:
        info = await connection.read_response()
    except ResponseError:
        return None
    if not isinstance(info, str):
        info = bytes(info).decode(errors="replace")
    return read_run_id(info)


def read_run_id(info: str) -> str | None:
    """Return the ``run_id`` in the text of INFO."""
    for line in info.splitlines():
        name, _, value = line.partition(":")
        if name == "run_id":
            return value.strip()
    return None
