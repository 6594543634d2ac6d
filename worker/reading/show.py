"""The tallies of one message, as anyone may read them."""

from worker.domain.tally import Counts
from worker.source import names
from worker.store.keys import Keys
from worker.store.opened import opened_redis
from worker.store.preflight import check_ownership
from worker.store.reader import TallyReader


async def show(
    redis_url: str | None, namespace: str, channel: str, message_timetoken: str
) -> Counts:
    """Return type → value → count of one message."""
    keys = Keys(namespace)
    async with opened_redis(redis_url) as redis:
        await check_ownership(redis, keys)
        return await TallyReader(redis, namespace).get(names.channel(channel), message_timetoken)
