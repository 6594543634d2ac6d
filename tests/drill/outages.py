"""What stands around a worker fails: Redis, the proxy, the access token. Each is a step of the day.

No step repairs anything by hand, except what only an operator can: start Redis, raise its memory,
start the proxy, put a token in its place.
"""

import time
from collections import Counter
from dataclasses import dataclass
from typing import Any, Final

from tests.drill.alerts import Alerts
from tests.drill.shift import LAST_DAY_MINUTES, MONTH_MINUTES, Shift
from tests.drill.windows import total
from tests.redis_server import MortalServer
from tests.source.http_proxy import HttpProxy
from tests.waiting import wait_until

SHORT_MINUTES: Final = 1
"""The shortest life of a token."""
TOKEN_ENDS: Final = "TallyTokenEnds"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outages:
    """The steps; each returns a line about what was seen."""

    shift: Shift
    server: MortalServer
    proxy: HttpProxy
    alerts: Alerts
    settle_seconds: float
    full_seconds: float
    """So soon ``/readyz`` says that Redis is full."""

    async def restart_proxy(self) -> str:
        """Cut every connection to PubNub, and refuse new ones for a moment."""
        worker, gaps = self.shift.worker, self.shift.gaps()
        failures = len(worker.entries("pubnub_unreachable"))
        self.proxy.stop()
        await worker.logs("pubnub_unreachable", times=failures + 1)
        await self.proxy.start()
        probes = await self.shift.probe()
        self._owes_no_more_than(gaps)
        silent = await self.alerts.stay_silent("TallyPubNubUnreachable")
        return f"every connection cut; nothing is owed{silent}; {probes}"

    async def restart_redis(self) -> str:
        """Restart a Redis that keeps all. A short absence is nobody's business."""
        gaps, began = self.shift.gaps(), time.monotonic()
        await self.server.restart()
        await self._connect_again()
        probes = await self.shift.probe()
        seconds = time.monotonic() - began
        if seconds > self.settle_seconds:  # answers that wait longer are dropped
            return f"{seconds:.1f} s are too long to say that nothing is owed; {probes}"
        self._owes_no_more_than(gaps)
        silent = await self.alerts.stay_silent("TallyRedisAway", "TallyRedisRefusesWrites")
        return f"counted again after {seconds:.1f} s; nothing is owed{silent}; {probes}"

    async def lose_redis(self) -> str:
        """End Redis, and start it again when somebody was woken."""
        worker = self.shift.worker
        failures = len(worker.entries("redis_unavailable"))
        await self.server.end()
        await worker.logs("redis_unavailable", times=failures + 1)
        fired = await self.alerts.fire("TallyRedisAway")
        await self.server.revive()
        await self._connect_again()
        await wait_until(worker.is_ready, what=self.shift.log)
        cleared = await self.alerts.clear("TallyRedisAway")
        return f"ready again{fired}{cleared}; {await self.shift.probe()}"

    async def fill_redis(self) -> str:
        """Let Redis have less memory than it has taken, and then more."""
        worker, redis, began = self.shift.worker, self.shift.world.redis, time.monotonic()
        taken = (await redis.info("memory"))["used_memory"]
        await redis.config_set("maxmemory", taken // 2)
        await worker.fails({"redis_writes"})
        seconds = time.monotonic() - began
        assert seconds < self.full_seconds, f"/readyz said so after {seconds:.1f} s"
        _, page = await worker.get_json("/readyz")
        reason = page["checks"]["redis_writes"]["reason"]
        assert "it is full, see its maxmemory" in reason, reason
        fired = await self.alerts.fire("TallyRedisRefusesWrites")
        await redis.config_set("maxmemory", 0)
        await wait_until(worker.is_ready, what=self.shift.log)
        cleared = await self.alerts.clear("TallyRedisRefusesWrites")
        probes = await self.shift.probe()
        return f"503 after {seconds:.1f} s: {reason!r}{fired}{cleared}; {probes}"

    async def refuse_token(self) -> str:
        """Refuse the token that is in use, once another is in its file."""
        shift, gaps = self.shift, self.shift.gaps()
        demand = shift.world.state.demand_token
        await shift.takes_token(lambda: demand(shift.grant(LAST_DAY_MINUTES)))
        demand(None)
        probes = await shift.probe()
        self._owes_no_more_than(gaps)
        refusals = await shift.refusals()
        return f"{refusals:.0f} answers of 403, then the new token; nothing is owed; {probes}"

    async def replace_token(self) -> str:
        """Put a new token in its place within the last day of the old one."""
        shift, gaps, refusals = self.shift, self.shift.gaps(), await self.shift.refusals()
        fired = await self.alerts.fire(TOKEN_ENDS)
        await shift.takes_token(lambda: shift.grant(MONTH_MINUTES))
        cleared = await self.alerts.clear(TOKEN_ENDS)
        probes = await shift.probe()
        self._owes_no_more_than(gaps)
        assert await shift.refusals() == refusals, "a token that is replaced in time has no 403"
        return f"no 403, nothing is owed{fired}{cleared}; {probes}"

    async def outlive_token(self) -> str:
        """Put a new token in its place only when the old one has ended, and somebody was told."""
        shift, owed = self.shift, self.shift.gaps()["forbidden"]
        expected = await self.alerts.fire(TOKEN_ENDS)
        await wait_until(self._are_all_refused, what=shift.log)
        refused = await self.alerts.fire("TallyNamesRefused")
        await shift.takes_token(lambda: shift.grant(MONTH_MINUTES))
        probes = await shift.probe()
        await wait_until(shift.worker.is_ready, what=shift.log)
        cleared = await self.alerts.clear(TOKEN_ENDS, "TallyNamesRefused")
        marks = shift.gaps()["forbidden"] - owed
        assert marks, "events were missed, and nothing is owed"
        refusals = await shift.refusals()
        line = f"{refusals:.0f} answers of 403, {marks} marks"
        return f"{line}{expected}{refused}{cleared}; {probes}"

    async def _are_all_refused(self) -> bool:
        figures: Any = await self.shift.worker.figures()
        all_of_them = total(figures, "tally_subscriptions")
        return bool(figures['tally_subscriptions{state="refused"}'] == all_of_them)

    def _owes_no_more_than(self, before: Counter[str]) -> None:
        more = self.shift.gaps() - before
        assert not more, f"nothing was lost, and this is owed: {dict(more)}"

    async def _connect_again(self) -> None:
        """Forget the drill's own connections to the earlier server."""
        await self.shift.world.redis.connection_pool.disconnect()
