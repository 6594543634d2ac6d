"""The client's reader on a connection of the worker: it fails with the worker's errors."""

from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, cast

from redis.asyncio import Redis

from reaction_tally import (
    AsyncTallyReader,
    NotPermittedError,
    NotTheseTalliesError,
    RedisUnavailableError,
    TallyReadError,
)
from reaction_tally.connections import server_name
from reaction_tally.keys import Keys
from reaction_tally.operations import Operations
from reaction_tally.reads import Reads
from reaction_tally.replies import REDIS_ERRORS
from worker import errors
from worker.store.connection import opened_redis
from worker.store.damage import raise_if_damaged
from worker.store.preflight import check_keys
from worker.store.protocol import explained
from worker.store.redis_errors import redis_errors, translated


class StepReader(AsyncTallyReader):
    """A reader that runs no script.

    Few users of Redis may run one, and Redis logs what it refuses.
    """

    def __init__(self, redis: Redis, namespace: str) -> None:
        super().__init__(redis, namespace)
        operations = Operations(namespace, server_name(redis))
        operations.is_script_refused = True
        self.reads = Reads(operations)


class Tallies:
    """The tallies of a namespace, to be read."""

    def __init__(self, redis: Redis, keys: Keys) -> None:
        self.redis = redis
        self.keys = keys
        self.reader = StepReader(redis, keys.namespace)

    async def is_known(self, channel: str) -> bool:
        """Tell whether a worker has ever seen a channel."""
        redis = cast("Any", self.redis)
        with redis_errors():
            (is_known,) = await redis.smismember(self.keys.channels, [channel])
        return bool(is_known)

    @asynccontextmanager
    async def reading(
        self,
        channel: str,
        messages: Iterable[str] = (),
    ) -> AsyncIterator[None]:
        """Read a channel, or messages of it.

        Raises:
            RedisUnavailableError: Redis does not answer.
            RedisUnfitError: the namespace is empty, or somebody else's.
            DamagedKeyError: another program wrote a key that is read.
            MalformedError: a key holds what the worker never writes.
        """
        try:
            with reading_errors():
                yield
        except errors.ScriptRefusedError:
            with redis_errors():
                await raise_if_damaged(self.redis, self.keys, channel, messages)
            raise


@asynccontextmanager
async def opened_tallies(url: str | None, namespace: str) -> AsyncIterator[Tallies]:
    """Yield the tallies of a Redis, or of the embedded Valkey of this folder.

    Raises:
        ConfigurationError: the address is missing or malformed.
        RedisUnavailableError: Redis does not answer.
        RedisUnfitError: there are no tallies, they have another schema,
            or another program wrote a key of all channels.
    """
    async with opened_redis(url, may_create=False) as redis:
        tallies = Tallies(redis, Keys(namespace))
        async with explained(redis):
            with reading_errors():
                await tallies.reader.check()
        try:
            yield tallies
        except errors.DamagedKeyError:
            raise
        except errors.ScriptRefusedError:
            await check_keys(redis, tallies.keys)
            raise


@contextmanager
def reading_errors() -> Iterator[None]:
    """Translate what the client's reader raises."""
    try:
        yield
    except TallyReadError as error:
        raise _translated(error) from error.__cause__ or error


def _translated(error: TallyReadError) -> errors.TallyError:
    cause = error.__cause__
    match error:
        case _ if isinstance(cause, REDIS_ERRORS):
            return translated(cause)
        case NotTheseTalliesError():
            return errors.RedisUnfitError(str(error))
        case NotPermittedError():
            return errors.MissingPermissionError(str(error))
        case RedisUnavailableError():
            return errors.RedisUnavailableError(str(error))
    # The client quotes what it cannot read: users wrote it.
    return errors.MalformedError(
        "Redis holds what the worker never writes. tally verify says of which messages."
    )
