"""The server of Redis itself: its clock, its memory, whether it is as a worker needs it."""

from dataclasses import dataclass
from typing import Any

from redis.exceptions import NoPermissionError

from worker.store.preflight import check_fitness, check_writes
from worker.store.servers import is_cluster, servers
from worker.store.shard_signs import ShardSigns, text_of
from worker.store.table import Table, retried


@dataclass(frozen=True, slots=True)
class Memory:
    """The memory of Redis, in bytes."""

    used: int
    limit: int

    @property
    def share(self) -> float:
        """The part of the limit that is taken."""
        return self.used / self.limit if self.limit else 0.0


async def _memory_of(server: Any) -> Memory:
    try:
        info = await server.execute_command("INFO", "memory")
    except NoPermissionError:
        return Memory(0, 0)
    machine = int(info.get("total_system_memory", 0))
    limit = int(info.get("maxmemory", 0))
    return Memory(int(info.get("used_memory", 0)), limit or machine)


class RedisServer(Table):
    """The server itself."""

    @retried
    async def now(self) -> int:
        """Return milliseconds since 1970, by the clock of Redis."""
        seconds, microseconds = await self._redis.time()
        return int(seconds) * 1000 + int(microseconds) // 1000

    async def check_writes(self) -> None:
        """Make sure that Redis takes writes now, and permits every command.

        Raises:
            TallyError: why not, and what to do.
        """
        await check_writes(self._redis, self._keys, self._replicas)

    async def check_fitness(self, *, allow_eviction: bool) -> None:
        """Make sure that counts stay exact on this Redis, as before a start.

        Raises:
            TallyError: why not, and what to do.
        """
        await check_fitness(
            self._redis,
            allow_eviction=allow_eviction,
            only_reads=True,
        )

    @retried
    async def run_id(self) -> str | None:
        """Return the id of the server's run; None if it is hidden.

        A cluster has the signs of its shards instead.
        """
        if is_cluster(self._redis):
            return text_of(await ShardSigns(self._redis, self._keys).read())
        try:
            info = await self._redis.info("server")
        except NoPermissionError:
            return None
        identifier = info.get("run_id")
        return str(identifier) if identifier else None

    @retried
    async def memory(self) -> Memory:
        """Return the memory that is taken, and the limit; 0 if they are hidden.

        Of a cluster, those of its fullest server.
        """
        memories = [await _memory_of(server) for server in await servers(self._redis)]
        return max(memories, key=lambda memory: memory.share)
