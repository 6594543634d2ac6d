"""The access token of all requests, and its renewal after a refusal."""

import asyncio
from collections.abc import Callable
from typing import Any, Final

import structlog

RENEW_SECONDS: Final = 1.0
"""The shortest time between two renewals, however many requests are refused."""

log = structlog.get_logger(__name__)


class AccessToken:
    """The access token that the SDK sends with each request."""

    def __init__(
        self,
        pubnub: Any,
        value: str | None,
        renew: Callable[[], str | None] | None,
    ) -> None:
        """``renew`` returns the current token. It runs in a thread."""
        self._pubnub = pubnub
        self._renew = renew
        self._renew_at = 0.0
        self._lock = asyncio.Lock()
        self.use(value)

    def use(self, value: str | None) -> None:
        """Send this token with all later requests."""
        self.value = value
        self._pubnub.set_token(value)

    async def replaces(self, refused: str | None) -> bool:
        """Tell whether there is another token than the refused one.

        A new token is looked for at most once a second.
        """
        async with self._lock:
            if self.value == refused:
                await self._renew_from(refused)
        return self.value != refused

    async def _renew_from(self, refused: str | None) -> None:
        now = asyncio.get_running_loop().time()
        if self._renew is None or now < self._renew_at:
            return
        self._renew_at = now + RENEW_SECONDS
        value = await asyncio.to_thread(self._renew)
        if value and value != refused:
            log.info("token_renewed")
            self.use(value)
