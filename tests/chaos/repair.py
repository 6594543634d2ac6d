"""The end of a chaos: workers repair what they know of, and a reconcile what nobody can know of."""

from collections.abc import Iterable, Sequence

from tests.chaos.report import Report
from tests.comparison import broken_tallies, compare
from tests.processes import Child
from tests.releases import Environment
from tests.waiting import wait_until
from tests.worlds import KEYS, World
from worker.cli.reports import reconcile_exit_code, reconcile_json
from worker.domain.position import Range
from worker.errors import ExitCode
from worker.reconciliation.report import ReconcileOptions
from worker.service import commands
from worker.settings import Settings

LAST = "17699999999999999"
"""The message of the last reaction in each channel: when it is counted, all before it was read."""


class Repair:
    """The repair of one world, and the comparison with the truth before and after."""

    def __init__(self, world: World, report: Report, channels: Sequence[str]) -> None:
        self._world = world
        self._report = report
        self._channels = channels

    async def run(self, releases: Sequence[Environment]) -> None:
        """Stop the faults, let a worker of each release and a reconcile repair, compare."""
        world, report = self._world, self._report
        report.faults = world.state.faults.struck.copy()
        world.state.faults.replace({})
        report.starts += len(releases)
        children = [world.start("run", **release) for release in releases]
        await self._read_all(children)
        await wait_until(world.owes_nothing, what=children[0].tail)
        report.before = await compare(world, self._channels)
        await self._reconcile()
        await self._verify(filter(None, releases))
        report.checks += 1
        report.broken += await broken_tallies(world.redis)
        for child in children:
            assert await child.stopped() == ExitCode.DONE, child.tail()

    async def _read_all(self, children: Sequence[Child]) -> None:
        """Return when the workers have read every event."""
        state = self._world.state
        await wait_until(lambda: all(map(listens, children)), what=children[0].tail)
        await wait_until(lambda: state.stream.seconds_until_release() is None)
        for channel in self._channels:
            state.add(channel, LAST, "reaction", "🏁", "everybody")
        await wait_until(self._has_read_all, what=children[0].tail)

    async def _has_read_all(self) -> bool:
        keys = [KEYS.counts(channel, LAST) for channel in self._channels]
        return bool(await self._world.redis.exists(*keys) == len(keys))

    async def _reconcile(self) -> None:
        world, report = self._world, self._report
        settings = Settings.model_validate(world.settings)
        reconciled = await commands.run_reconcile(settings, [], Range(), ReconcileOptions(), None)
        assert reconcile_exit_code(reconciled) == ExitCode.DONE, reconciled
        totals = reconcile_json(reconciled, dry_run=False)
        del totals["channels"], totals["dry_run"]
        report.reconciled = ", ".join(f"{value} {name}" for name, value in totals.items())
        report.after = await compare(world, self._channels)
        verified = await commands.run_verify(settings, [], 1, None)
        assert verified.is_exact or report.after, verified

    async def _verify(self, releases: Iterable[Environment]) -> None:
        """Let earlier releases read what is there now."""
        for release in releases:
            verify = await self._world.do("verify", **release)
            assert not verify.process.returncode, verify.out


def listens(child: Child) -> bool:
    """Tell whether a worker has begun to listen."""
    return '"subscription_starts"' in child.err
