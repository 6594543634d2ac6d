"""The tallies of one message, read for ``tally show``."""

from collections.abc import Iterator

from reaction_tally.keys import Keys
from worker.domain.tally import Counts, by_count
from worker.source import names
from worker.store import snapshot
from worker.store.connection import opened_redis
from worker.store.damage import damage_of_message_named
from worker.store.ownership import check_ownership
from worker.telemetry.text import escape


async def read_tallies(
    redis_url: str | None,
    namespace: str,
    channel: str,
    message_timetoken: str,
) -> Counts:
    """Return type → value → count of one message.

    Raises:
        ConfigurationError: PubNub would refuse the channel's name.
        RedisUnavailableError: Redis does not answer.
        RedisUnfitError: the namespace is somebody else's.
        DamagedKeyError: another program wrote a key that is read.
    """
    keys = Keys(namespace)
    async with opened_redis(redis_url) as redis:
        await check_ownership(redis, keys)
        name = names.channel(channel)
        async with damage_of_message_named(redis, keys, name, message_timetoken):
            return await snapshot.read_tallies(redis, keys, name, message_timetoken)


def tally_lines(counts: Counts) -> Iterator[str]:
    """Yield the tallies of a message for people."""
    if not counts:
        yield "No reactions."
    for type, value, count in by_count(counts):
        yield f"{escape(type)}  {escape(value)}  {count}"
