"""The users whose events are refused: the hash ``forgotten``."""

from collections.abc import Collection, Mapping
from secrets import token_hex
from typing import Final

from worker.domain.forgotten_users import NOBODY, ForgottenUsers, digest
from worker.store.batch import MAX_BATCH, batched
from worker.store.table import Table, retried

KEY: Final = "key"
"""The field with the key of the hashes, in hexadecimal digits."""
KEY_BYTES: Final = 32


class RefusedUsers(Table):
    """Table: the keyed hash of each forgotten user → milliseconds of the request."""

    @retried
    async def read(self) -> ForgottenUsers:
        """Return the forgotten users."""
        fields = dict(await self._redis.hgetall(self._keys.forgotten))
        key = fields.pop(KEY, "")
        if not key:
            return NOBODY
        digests = frozenset(map(bytes.fromhex, fields))
        return ForgottenUsers(bytes.fromhex(key), digests)

    @retried
    async def add(self, uuids: Collection[str]) -> None:
        """Refuse users from now on."""
        # Of two processes one makes the key.
        await self._redis.hsetnx(self._keys.forgotten, KEY, token_hex(KEY_BYTES))
        seconds, microseconds = await self._redis.time()
        now = int(seconds) * 1000 + int(microseconds) // 1000
        fields = await self._fields(uuids)
        for part in batched(list(fields.values()), MAX_BATCH):
            times = dict.fromkeys(part, now)
            await self._redis.hset(self._keys.forgotten, mapping=times)

    @retried
    async def remove(self, uuids: Collection[str]) -> int:
        """Refuse these users no more; return how many were refused."""
        count = 0
        fields = await self._fields(uuids)
        for part in batched(list(fields.values()), MAX_BATCH):
            count += await self._redis.hdel(self._keys.forgotten, *part)
        return count

    @retried
    async def since(self, uuids: Collection[str]) -> Mapping[str, int]:
        """Return when those who are forgotten asked for it, in milliseconds."""
        fields = await self._fields(uuids)
        since: dict[str, int] = {}
        for part in batched(list(fields.items()), MAX_BATCH):
            asked = [field for _, field in part]
            times = await self._redis.hmget(self._keys.forgotten, *asked)
            for (uuid, _), time in zip(part, times, strict=True):
                if time:
                    since[uuid] = int(time)
        return since

    async def _fields(self, uuids: Collection[str]) -> dict[str, str]:
        """Return the field of each user; none if nobody was ever forgotten."""
        key = await self._redis.hget(self._keys.forgotten, KEY)
        if not key:
            return {}
        secret = bytes.fromhex(key)
        return {uuid: digest(secret, uuid).hex() for uuid in uuids}
