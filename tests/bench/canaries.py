"""Secrets and payloads with a word that must appear nowhere, and trouble of every kind."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final, Protocol

from worker.emulator import State
from worker.settings import SECRETS

ROOM: Final = "room"
MESSAGE: Final = "17600000001728660"
POISONED: Final = "17600000001728661"
"""A message of which Redis refuses every event."""

CANARY: Final = "canary"
"""A part of every secret, which no encoding changes."""
PAYLOAD: Final = "p4yl04d"
"""A part of every text of users."""

KEYS: Final = {
    "PUBNUB_SUBSCRIBE_KEY": f"sub-c-{CANARY}",
    "PUBNUB_PUBLISH_KEY": f"pub-c-{CANARY}",
    "PUBNUB_SECRET_KEY": f"sec-c-{CANARY}",
    "PUBNUB_AUTH_TOKEN": f"q+{CANARY}/x=",
    "TALLY_API_TOKEN": f"{CANARY}-of-the-api/+=",
}
WAYS: Final = ("environment", "files", ".env")
"""Ways to give a secret."""
TELLERS: Final = frozenset({"show", "explain", "top", "tail", "verify"})
"""Commands that print values on purpose."""


class Written(Protocol):
    """The output of a command."""

    @property
    def out(self) -> str:
        """The standard output."""

    @property
    def err(self) -> str:
        """The standard error."""


def redis_url(url: str, password: str = f"{CANARY}-word") -> str:
    """Return the address of a Redis for a user who needs a password."""
    return url.replace("://", f"://worker:{password}@")


async def guard(redis: Any, password: str = f"{CANARY}-word") -> None:
    """Let Redis accept only the user with this password."""
    await redis.execute_command(
        "ACL", "SETUSER", "worker", "reset", "on", f">{password}", "~*", "&*", "+@all"
    )


async def lock_out(redis: Any) -> None:
    """Let Redis refuse the user from now on."""
    await redis.execute_command("ACL", "SETUSER", "worker", "resetpass", ">another")
    await redis.client_kill_filter(_type="normal", skipme=True)


def give(way: str, folder: Path, secrets: dict[str, str]) -> dict[str, str]:
    """Give secrets in one way; return what must be in the environment for it."""
    assert secrets.keys() <= set(SECRETS)
    if way == "environment":
        return secrets
    if way == ".env":
        with (folder / ".env").open("a") as dotenv:
            dotenv.writelines(f"{name}='{secret}'\n" for name, secret in secrets.items())
        return {}
    for name, secret in secrets.items():
        (folder / name).write_text(f"{secret}\n")
    return {f"{name}_FILE": str(folder / name) for name in secrets}


def write_payloads(state: State) -> int:
    """Let users write payloads; return how many will be quarantined."""
    for number in range(3):
        state.add(ROOM, MESSAGE, f"type-{PAYLOAD}", f"value-{PAYLOAD}", f"uuid-{PAYLOAD}-{number}")
    state.publish(ROOM, {"text": f"chat {PAYLOAD}"}, f"uuid-{PAYLOAD}")
    usual = {
        "type": PAYLOAD,
        "value": PAYLOAD,
        "actionTimetoken": "17600000002020754",
        "messageTimetoken": MESSAGE,
    }
    envelope = {"a": "5", "f": 0, "i": PAYLOAD, "k": "sub-c", "c": ROOM, "u": {"meta": PAYLOAD}}
    malformed: list[object] = [
        {**envelope, "e": 3, "d": {"event": PAYLOAD, "data": usual}},
        {
            **envelope,
            "e": 3,
            "d": {"event": "added", "data": {**usual, "actionTimetoken": PAYLOAD}},
        },
        {
            **envelope,
            "e": 3,
            "d": {"event": "added", "data": {**usual, "messageTimetoken": f"'\"{PAYLOAD}"}},
        },
        {**envelope, "e": 3, "d": {"event": "added", "data": {**usual, "value": [PAYLOAD]}}},
        {
            **envelope,
            "e": 3,
            "d": {"event": "added", "data": {**usual, "value": f"{PAYLOAD}\ud83d"}},
        },
        {**envelope, "e": 3, "d": {"event": "added", "data": {**usual, "type": PAYLOAD * 10_000}}},
        {**envelope, "e": 3, "d": PAYLOAD},
        [PAYLOAD],
        PAYLOAD,
    ]
    for message in malformed:
        state.inject(ROOM, raw=json.dumps(message))
    return len(malformed)


def poison() -> dict[str, object]:
    """Return a well-formed event of the message that Redis refuses."""
    data = {
        "type": PAYLOAD,
        "value": PAYLOAD,
        "actionTimetoken": "17600000002020755",
        "messageTimetoken": POISONED,
    }
    envelope = {
        "a": "5",
        "f": 0,
        "e": 3,
        "i": PAYLOAD,
        "p": {"t": "17600000002110345", "r": 43},
        "k": "sub-c",
        "c": ROOM,
    }
    return {
        **envelope,
        "d": {"source": "actions", "version": "1.0", "event": "added", "data": data},
    }


async def write_nonsense(redis: Any) -> None:
    """Fill Redis with what this program never writes."""
    key = f"tally:{{{ROOM}}}:"
    await redis.hset(f"{key}owed", "overflow", PAYLOAD)
    await redis.hset(f"{key}progress", mapping={"newest": PAYLOAD, "actions": PAYLOAD})
    await redis.hset(f"{key}counts:{MESSAGE}", f"type-{PAYLOAD}:{PAYLOAD}", PAYLOAD)
    await redis.hset(f"{key}actions:{MESSAGE}", f"type-{PAYLOAD}:{PAYLOAD}:{PAYLOAD}", PAYLOAD)
    await redis.xadd(f"{key}journal", {"after": PAYLOAD, "origin": PAYLOAD, "0": PAYLOAD})
    await redis.expire(f"{key}journal", 60)
    await redis.set(f"{key}head", PAYLOAD)


def expect_no_word(command: str, written: Written, *, form: str) -> None:
    """Expect no secret, and no payload unless the command prints values on purpose."""
    assert CANARY not in written.out + written.err, command
    assert PAYLOAD not in written.err, command
    assert PAYLOAD not in written.out or command in TELLERS, command
    if form == "json":
        for line in written.err.splitlines():
            assert line.startswith(("{", "tally: ", "  ")), written.err


def expect_no_word_on(pages: Iterable[str]) -> None:
    """Expect neither a secret nor a payload on a page of the worker."""
    for page in pages:
        assert CANARY not in page
        assert PAYLOAD not in page
