"""What could not be applied, with the reason: the stream ``quarantine``."""

from typing import Final

from worker.store.table import Table, retried

LENGTH: Final = 10_000
"""The stream keeps so many entries, the newest ones."""
PAYLOAD_CHARACTERS: Final = 4_096
"""The stream keeps so much of a payload."""


class DeadLetters(Table):
    """Keeps dead letters for a person to read."""

    @retried
    async def add(self, channel: str, reason: str, payload: str) -> None:
        """Keep a dead letter; a long payload is cut."""
        entry = {
            "channel": _storable(channel),
            "reason": _storable(reason),
            "payload": _storable(payload)[:PAYLOAD_CHARACTERS],
        }
        await self._redis.xadd(
            self._keys.quarantine,
            entry,
            maxlen=LENGTH,
            approximate=True,
        )


def _storable(text: str) -> str:
    """Return the text with escapes for lone surrogates: UTF-8 has none."""
    return text.encode(errors="backslashreplace").decode()
