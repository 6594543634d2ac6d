"""The access token: when it ends, as it says itself, and a new one in its place."""

import asyncio
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Self

import structlog
from pubnub.managers import TokenManager

from worker.domain.duration import span
from worker.telemetry import metrics

RENEW_SECONDS: Final = 1.0
"""The shortest time between two looks for a new token after refusals."""
LAST_DAY_SECONDS: Final = 86_400
"""How long before its end a token should be replaced."""
SECONDS_PER_MINUTE: Final = 60
UNKNOWN: Final = (
    "cannot be read, so nobody knows when it ends. "
    "Is it whole? A token of Access Manager v3 can be read."
)

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class TokenEnd:
    """When a token ends; ``at`` is None if it cannot be read."""

    at: datetime | None

    @classmethod
    def of(cls, token: str) -> Self:
        """Return the end of a token, which may be any text."""
        try:
            parsed = TokenManager.parse_token(_padded(token))
            life = parsed["ttl"] * SECONDS_PER_MINUTE
            seconds = parsed["timestamp"] + life
            return cls(datetime.fromtimestamp(seconds, UTC))
        except Exception:  # the SDK raises whatever its decoder does
            return cls(None)

    @property
    def timestamp(self) -> float:
        """The end for a metric; 0 if it is unknown."""
        return self.at.timestamp() if self.at else 0.0

    def has_come(self, now: float) -> bool:
        """Tell whether PubNub refuses the token at this time."""
        return self.at is not None and self.timestamp <= now

    def is_far(self, now: float) -> bool:
        """Tell whether the end is known, and more than a day away."""
        return self.timestamp - now > LAST_DAY_SECONDS

    def is_later_than(self, other: "TokenEnd") -> bool:
        """Tell whether this end is known, and later."""
        return self.timestamp > other.timestamp

    def sentence(self, now: float) -> str:
        """Return ``ends in 12 days (2026-12-11 10:00 UTC)``."""
        if self.at is None:
            return UNKNOWN
        left = self.timestamp - now
        moment = f"{self.at:%Y-%m-%d %H:%M} UTC"
        if left <= 0:
            return f"has ended {span(-left)} ago ({moment})"
        sentence = f"ends in {span(left)} ({moment})"
        if self.is_far(now):
            return sentence
        return f"{sentence}: put a new one in its place now"

    def as_json(self, now: float) -> dict[str, object]:
        """Return the end for programs."""
        left = self.timestamp - now
        return {
            "ends_at": self.at.isoformat() if self.at else None,
            "seconds_left": round(left) if self.at else None,
            "says": self.sentence(now),
        }


class CurrentToken:
    """The access token in use, and when it ends.

    A poll that is running keeps the token it began with.
    """

    def __init__(
        self,
        renew: Callable[[], str | None],
        send: Callable[[str | None], None],
    ) -> None:
        """``renew`` returns the token of now, and is called in a thread.

        ``send`` lets all later requests send a token.
        """
        self.text: str | None = None
        self.end: TokenEnd | None = None
        self._renew = renew
        self._send = send
        self._renew_at = 0.0
        self._renewing = asyncio.Lock()

    def use(self, token: str | None) -> None:
        """Send this token with all later requests."""
        self.text = token
        self.end = TokenEnd.of(token) if token else None
        seconds = self.end.timestamp if self.end else 0.0
        metrics.token_expires.set(seconds)
        self._send(token)

    def advice(self, user_id: str) -> str:
        """Return what is wrong if the token in use is for another user, or nothing."""
        authorized = _authorized_user(self.text or "")
        if authorized in ("", user_id):
            return ""
        return (
            f"The token is for the user {authorized!r}, "
            f"and PUBNUB_USER_ID is {user_id!r}: "
            "make both the same."
        )

    async def renew(self) -> None:
        """Use the token of now, if it lasts longer than the one in use.

        Any other token is used when PubNub refuses that one.
        """
        async with self._renewing:
            token = await asyncio.to_thread(self._renew)
            end = TokenEnd.of(token or "")
            if self.end and end.is_later_than(self.end):
                self._replace(token)

    async def has_replaced(self, refused: str | None) -> bool:
        """Tell whether another token is in use after a refusal.

        Looks for one, if that was not done just now.
        """
        async with self._renewing:
            now = asyncio.get_running_loop().time()
            if self.text == refused and now >= self._renew_at:
                self._renew_at = now + RENEW_SECONDS
                token = await asyncio.to_thread(self._renew)
                if token and token != refused:
                    self._replace(token)
        return self.text != refused

    def _replace(self, token: str | None) -> None:
        self.use(token)
        log.info("token_renewed")


def _authorized_user(token: str) -> str:
    """Return the one user who may send the token; nothing if all may, or nobody knows."""
    try:
        parsed: dict[str, str] = TokenManager.parse_token(_padded(token))
        return parsed.get("authorized_uuid") or ""
    except Exception:  # the SDK raises whatever its decoder does
        return ""


def _padded(token: str) -> str:
    """Return the token with the ``=`` at its end, which may get lost."""
    bare = token.strip().rstrip("=")
    padding = "=" * (-len(bare) % 4)
    return urlsafe_b64encode(urlsafe_b64decode(bare + padding)).decode()
