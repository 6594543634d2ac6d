"""Users who are forgotten: known by a keyed hash, not by name."""

import hmac
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class ForgottenUsers:
    """The users whose events are refused.

    It is false if there are none, so that usually nothing is hashed.
    """

    key: bytes = b""
    digests: frozenset[bytes] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.digests)

    def __contains__(self, uuid: str) -> bool:
        return digest(self.key, uuid) in self.digests


NOBODY: Final = ForgottenUsers()


def digest(key: bytes, uuid: str) -> bytes:
    """Return the keyed hash of a user: HMAC-SHA256.

    Lone surrogates are hashed, too: no event is refused for its form here.
    """
    text = uuid.encode(errors="surrogatepass")
    return hmac.digest(key, text, "sha256")
