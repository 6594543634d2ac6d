"""The gaps that were repaid lately: one entry in the log for many channels."""

import asyncio
from collections import Counter
from collections.abc import Collection
from typing import Final

import structlog

from worker.telemetry.text import examples

SUMMARY_SECONDS: Final = 60.0
"""The time between two entries. A repair of 5,000 channels takes some minutes."""

log = structlog.get_logger(__name__)


class RepaidGaps:
    """Collects the repaid channels, and logs them together."""

    def __init__(self) -> None:
        self._channels: set[str] = set()
        self._causes: Counter[str] = Counter()
        self._has_news = asyncio.Event()

    def note(self, channel: str, causes: Collection[str]) -> None:
        """Note that marks of a channel were taken back."""
        log.debug("channel_repaid", channel=channel, causes=causes)
        self._channels.add(channel)
        self._causes.update(causes)
        self._has_news.set()

    async def run(self) -> None:
        """Log what was repaid, once a minute at most, until cancelled."""
        try:
            while True:
                await self._has_news.wait()
                self.log()
                await asyncio.sleep(SUMMARY_SECONDS)
        finally:
            self.log()

    def log(self) -> None:
        """Log what was repaid since the last entry, if anything was."""
        self._has_news.clear()
        if not self._channels:
            return
        log.info(
            "gap_repaid",
            channels=len(self._channels),
            examples=examples(self._channels),
            causes=dict(self._causes),
        )
        self._channels.clear()
        self._causes.clear()
