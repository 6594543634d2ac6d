"""The users whose events are refused: the hash ``forgotten``."""

import re
import shlex
from collections.abc import Collection, Mapping
from secrets import token_hex
from typing import Final

from worker.domain.forgotten_users import NOBODY, ForgottenUsers, digest
from worker.errors import RedisUnfitError
from worker.store.batch import MAX_BATCH, batched
from worker.store.damage import FORGET_AGAIN
from worker.store.table import Table, retried
from worker.telemetry.text import escape

KEY: Final = "key"
"""The field with the key of the hashes, in hexadecimal digits."""
KEY_BYTES: Final = 32
_DIGITS: Final = re.compile("[0-9a-f]{64}")
"""A hash, and the key of the hashes."""


class RefusedUsers(Table):
    """Table: the keyed hash of each forgotten user → milliseconds of the request."""

    @retried
    async def read(self) -> ForgottenUsers:
        """Return the forgotten users.

        Raises:
            RedisUnfitError: another program changed the hash, so nobody knows who they are.
        """
        try:
            fields = dict(await self._redis.hgetall(self._keys.forgotten))
        except UnicodeError:
            raise RedisUnfitError(
                f"Redis's key {self._keys.forgotten} holds a field that is no text, "
                "which no worker writes. Stop the program that wrote it. "
                f"redis-cli HKEYS {self._keys.forgotten} shows the field; delete it with HDEL."
            ) from None
        if not fields:
            return NOBODY
        secret = self._secret_of(fields.pop(KEY, ""))
        strange = next((field for field in fields if not _DIGITS.fullmatch(field)), None)
        if strange is not None:
            raise self._strange(strange)
        return ForgottenUsers(secret, frozenset(map(bytes.fromhex, fields)))

    @retried
    async def add(self, uuids: Collection[str]) -> None:
        """Refuse users from now on."""
        # A new key would make the hashes of others worthless.
        if not await self._redis.exists(self._keys.forgotten):
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
        if not await self._redis.exists(self._keys.forgotten):
            return {}
        key = await self._redis.hget(self._keys.forgotten, KEY)
        secret = self._secret_of(key or "")
        return {uuid: digest(secret, uuid).hex() for uuid in uuids}

    def _secret_of(self, key: str) -> bytes:
        """Return the key of the hashes.

        Raises:
            RedisUnfitError: it is lost, and with it who is forgotten.
        """
        if _DIGITS.fullmatch(key):
            return bytes.fromhex(key)
        name = self._keys.forgotten
        raise RedisUnfitError(
            f"Redis's key {name} has lost its field {KEY}: nobody knows who is forgotten. "
            "Another program wrote it. Stop the workers. Put back the field from a backup. "
            f"If there is none, type: redis-cli DEL {name}. {FORGET_AGAIN}"
        )

    def _strange(self, field: str) -> RedisUnfitError:
        name = self._keys.forgotten
        command = shlex.join(["redis-cli", "HDEL", name, field])
        return RedisUnfitError(
            f"Redis's key {name} holds the field {field!r}, which no worker writes. "
            f"Stop the program that wrote it, then type: {escape(command)}"
        )
