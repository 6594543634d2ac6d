"""redis-py's pool of connections to the primary that Sentinels name."""

from redis.asyncio.sentinel import SentinelConnectionPool


class SentinelPool(SentinelConnectionPool):
    """A pool that also ends its connections to the Sentinels."""

    async def aclose(self) -> None:
        """End all connections."""
        await super().aclose()
        await self.sentinel_manager.aclose()
