"""How much a reconcile may prune: a list may be wrong during an outage."""

from worker.domain.reconciliation import Limit
from worker.reconciliation.evidence import Findings
from worker.reconciliation.origin_check import OriginCheck
from worker.reconciliation.scan_state import ScanState
from worker.store.entries import Entries
from worker.store.tables import Tables

TOO_MANY = "too many at once: check if PubNub really lists these no more; if so, use --force"
NO_WITNESS = (
    "PubNub lists nothing of this channel, and nothing of any other channel that was asked: "
    "check PUBNUB_ORIGIN and PUBNUB_SUBSCRIBE_KEY; if they are right, use --force"
)


class PruneLimit:
    """Compares losses with the whole channel, and with what it lost lately.

    So rounds cannot take away by slices what one look may not.
    """

    def __init__(
        self,
        limit: Limit,
        entries: Entries,
        tables: Tables,
        origin: OriginCheck,
    ) -> None:
        self.origin = origin
        self._limit = limit
        self._entries = entries
        self._tables = tables

    async def refusal(self, scan: ScanState, losses: int, findings: Findings) -> str:
        """Return why so many entries may not be pruned; empty if they may.

        Raises:
            PubNubError: another channel was asked, and PubNub failed.
        """
        channel = scan.channel
        lists_nothing = not (scan.coverage.listed or findings.second.is_any_listed)
        is_whole = losses == len(findings.absent)
        if is_whole and await self._are_gone(channel, findings):
            # Another process has pruned meanwhile: a person forced it.
            return ""
        total = await self._entries.count(channel)
        if lists_nothing:
            # An empty list takes away the whole channel,
            # whatever part was compared.
            losses = max(losses, total)
        lately = await self._tables.pruned.read(channel)
        if self._limit.forbids(losses + lately, total + lately):
            return TOO_MANY
        if lists_nothing and not await self.origin.is_known(channel):
            return NO_WITNESS
        return ""

    async def _are_gone(self, channel: str, findings: Findings) -> bool:
        """Tell whether no absent entry is live any more.

        The index may be lost, so the entries themselves are asked.
        """
        absent = [candidate.identity for candidate in findings.absent]
        entries = await self._entries.read(channel, absent)
        return all(entry.live is None for entry in entries)

    async def note(self, channel: str, losses: int) -> None:
        """Count losses of a channel, before they are pruned."""
        await self._tables.pruned.add(channel, losses)
