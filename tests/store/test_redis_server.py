"""What the worker asks the server itself; ``test_rollback_detector.py`` has its run id."""

from redis.asyncio import Redis

from worker.store.tables import Tables


async def test_the_time_is_redis_own(tables: Tables, redis: Redis) -> None:
    """It is in milliseconds."""
    before = await redis.time()
    now = await tables.server.now()
    after = await redis.time()

    assert before[0] * 1000 + before[1] // 1000 <= now <= after[0] * 1000 + after[1] // 1000
