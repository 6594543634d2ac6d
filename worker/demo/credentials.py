"""With what the demo's users and its worker pass Access Manager."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from worker.emulator import DELETE, READ, WRITE, Emulator, Grant

PUBLISH_KEY: Final = "demo"
SECRET_KEY: Final = "sec-c-demo"  # noqa: S105 - it protects nothing but the demo
MINUTES: Final = 120
"""How long a token lives: longer than the longest demo."""


class Access(StrEnum):
    """How the requests of a demo are let through."""

    OPEN = "open"  # Access Manager is off
    SIGNATURES = "signatures"
    TOKENS = "tokens"


@dataclass(frozen=True, slots=True)
class Credentials:
    """What one sends: a signature, a token, or neither."""

    secret_key: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)

    def settings(self) -> dict[str, str]:
        """Return them as settings of the worker."""
        settings: dict[str, str] = {}
        if self.secret_key:
            settings["PUBNUB_PUBLISH_KEY"] = PUBLISH_KEY
            settings["PUBNUB_SECRET_KEY"] = self.secret_key
        if self.token:
            settings["PUBNUB_AUTH_TOKEN"] = self.token
        return settings


CredentialsOf = Callable[[str], Credentials]
"""Returns what the user of this name sends."""


def no_credentials(_user: str) -> Credentials:
    """Return what anybody sends where Access Manager is off."""
    return Credentials()


class Guard:
    """Switches Access Manager on, and gives everybody what passes it."""

    def __init__(
        self,
        emulator: Emulator,
        access: Access,
        channels: Sequence[str],
    ) -> None:
        self._granting = emulator.state.access
        self._access = access
        self._channels = channels
        if access is not Access.OPEN:
            self._granting.switch_on(PUBLISH_KEY, SECRET_KEY)

    def for_user(self, name: str) -> Credentials:
        """Return what lets this user, and no other, react."""
        permitted = dict.fromkeys(self._channels, READ | WRITE | DELETE)
        grant = Grant(minutes=MINUTES, uuid=name, channels=permitted)
        return self._credentials(grant)

    def for_worker(self) -> Credentials:
        """Return what lets the worker read."""
        names = "|".join(map(re.escape, self._channels))
        patterns = {f"^({names})$": READ}
        grant = Grant(minutes=MINUTES, channel_patterns=patterns)
        return self._credentials(grant)

    def _credentials(self, grant: Grant) -> Credentials:
        if self._access is Access.TOKENS:
            token = self._granting.grant(grant)
            return Credentials(token=token)
        if self._access is Access.SIGNATURES:
            return Credentials(secret_key=SECRET_KEY)
        return Credentials()
