"""Access Manager: every request needs a signature or a token, once it is on."""

from dataclasses import dataclass
from typing import Final

from worker.emulator.calls import NUMBER, Call
from worker.emulator.replies import (
    RefusedError,
    Reply,
    actions_error,
    forbidden,
    service_error,
)
from worker.emulator.signatures import is_equal, signature
from worker.emulator.subscription import Subscription
from worker.emulator.timetokens import TICKS_PER_SECOND, Timetokens
from worker.emulator.tokens import (
    DELETE,
    MANAGE,
    READ,
    WRITE,
    Grant,
    write_token,
)

CLOCK_SECONDS: Final = 60
"""How far the timestamp of a signed request may be off."""
NEEDED: Final = {
    "subscribe": READ,
    "actions": READ,
    "add": WRITE,
    "remove": DELETE,
    "publish": WRITE,
    # PubNub's pages do not say which of them lists a group. ``needs`` wants more for a change.
    "groups": READ | MANAGE,
    "grant": 0,
}
"""Operation → the permissions of which it needs one. Others are open to everybody."""
OF_ACTIONS: Final = ("actions", "add", "remove")
_DENIED: Final = (
    "Supplied authorization key does not have the permissions required to perform this operation."
)


@dataclass(frozen=True, slots=True)
class Granted:
    """A token's grant, and when it ends, in seconds since 1970."""

    grant: Grant
    ends_at: int


class Access:
    """Access Manager of one keyset.

    It is off until ``switch_on``. A poll that waits already goes on when
    its token ends, because nobody knows what PubNub does.
    """

    def __init__(self, time: Timetokens) -> None:
        self._time = time
        self._keys: tuple[str, str] | None = None
        self._granted: dict[str, Granted] = {}

    @property
    def is_on(self) -> bool:
        """Whether requests are checked."""
        return self._keys is not None

    def switch_on(self, publish_key: str, secret_key: str) -> None:
        """Check all requests from now on; both keys sign."""
        self._keys = (publish_key, secret_key)

    def grant(self, grant: Grant) -> str:
        """Return a token that permits this from now on."""
        now = self._now()
        token = write_token(grant, now)
        self._granted[token] = Granted(grant, now + 60 * grant.minutes)
        return token

    def check(
        self,
        operation: str,
        names: Subscription,
        call: Call,
    ) -> None:
        """Let a request pass that is signed, or has a token that permits it.

        Raises:
            RefusedError: Neither is true.
        """
        if self._keys is None or operation not in NEEDED:
            return
        if "signature" in call.query:
            self._check_signature(call, self._keys)
        else:
            self._check_token(operation, names, call)

    def _check_signature(
        self,
        call: Call,
        keys: tuple[str, str],
    ) -> None:
        timestamp = call.query.get("timestamp", "")
        is_number = NUMBER.fullmatch(timestamp)
        seconds_off = abs(int(timestamp) - self._now()) if is_number else None
        if seconds_off is None or seconds_off > CLOCK_SECONDS:
            refusal = service_error(403, "Timestamp is not within 60 seconds.")
            raise RefusedError(refusal)

        signed = (call.method, call.place)
        right = signature(signed, call.query, call.body, keys)
        sent = call.query["signature"]
        if not is_equal(sent, right):
            refusal = service_error(403, "Signature does not match")
            raise RefusedError(refusal)

    def _check_token(
        self,
        operation: str,
        names: Subscription,
        call: Call,
    ) -> None:
        topics = names.topics()
        token = call.query.get("auth", "")
        granted = self._granted.get(token)
        if granted is None:
            raise RefusedError(denied(operation, topics))

        if self._now() >= granted.ends_at:
            refusal = service_error(403, "Token is expired.")
            raise RefusedError(refusal)

        grant = granted.grant
        lacking = topics
        if grant.uuid in {None, call.query.get("uuid")}:
            wanted = needs(operation, call)
            lacking = grant.lacking(topics, wanted)
        if lacking or operation == "grant":
            raise RefusedError(denied(operation, lacking))

    def _now(self) -> int:
        return self._time.now() // TICKS_PER_SECOND


def needs(operation: str, call: Call) -> int:
    """Return the permissions of which a request needs one."""
    if operation != "groups":
        return NEEDED[operation]

    is_removal = call.place.endswith("/remove")
    changes = {"add", "remove"}.intersection(call.query)
    return MANAGE if is_removal or changes else NEEDED["groups"]


def denied(operation: str, topics: list[str]) -> Reply:
    """Return the 403 for what is not permitted."""
    if operation in OF_ACTIONS:
        return actions_error(403, _DENIED)
    return forbidden(topics)
