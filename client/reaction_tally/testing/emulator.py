"""The emulator of PubNub as a process, and users who react there, over HTTP."""

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlencode

from reaction_tally.testing.action import Action
from reaction_tally.testing.errors import ReactionRefusedError
from reaction_tally.testing.processes import Process, running, wait_for
from reaction_tally.testing.signing import Signer

SUBSCRIBE_KEY: Final = "demo"
ANSWER_SECONDS: Final = 60.0
ALL_ACTIONS: Final = 1 + 2 + 8
"""Read, write and delete: what a user who reacts needs."""
_ORIGIN: Final = "PUBNUB_ORIGIN"


@contextmanager
def pubnub_emulator(*, access_manager: bool = False) -> Iterator["PubNubEmulator"]:
    """Run an emulator of PubNub until the block ends: no worker, no Redis.

    With ``access_manager`` it refuses requests without a signature or a token. ``react`` and
    ``remove`` sign theirs, and ``grant`` makes tokens.

    >>> with pubnub_emulator() as pubnub:
    ...     pubnub.react("room", "17600000001728660", "👍", "ana")

    Raises:
        NotInstalledError: the worker's distribution is not installed.
        ServiceFailedError: the process does not start. The text says why.
    """
    with (
        temporary_folder() as folder,
        running_emulator(folder, access_manager=access_manager) as process,
    ):
        settings = settings_of(process)
        yield PubNubEmulator(settings[_ORIGIN], _signer(settings))


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """Yield a folder that is deleted in the end."""
    folder = tempfile.TemporaryDirectory(prefix="tally-", ignore_cleanup_errors=True)
    with folder as path:
        yield Path(path)


@contextmanager
def running_emulator(
    folder: Path,
    *,
    access_manager: bool = False,
) -> Iterator[Process]:
    """Run an emulator in this folder."""
    options = ["--access-manager"] if access_manager else []
    words = ["emulator", "--port", "0", *options]
    with running(words, folder, {}) as process:
        yield process


def origin_of(emulator: Process) -> str:
    """Return host and port of an emulator, as soon as it has written them."""
    return settings_of(emulator)[_ORIGIN]


def settings_of(emulator: Process) -> dict[str, str]:
    """Return the settings that an emulator writes, as soon as they are there."""

    def find() -> dict[str, str] | None:
        for line in emulator.lines():
            if line.startswith(f"{_ORIGIN}="):
                pairs = [word.partition("=") for word in line.split()]
                return {name: value for name, _, value in pairs}
        return None

    return wait_for(find, emulator)


def _signer(settings: Mapping[str, str]) -> Signer | None:
    if "PUBNUB_SECRET_KEY" not in settings:
        return None
    return Signer(settings["PUBNUB_PUBLISH_KEY"], settings["PUBNUB_SECRET_KEY"])


class PubNubEmulator:
    """A PubNub for tests, and users who react.

    The SDK of an application uses it as its ``origin``, without TLS.
    """

    def __init__(self, origin: str, signer: Signer | None = None) -> None:
        """``origin`` is host and port. A ``signer`` has the keys of Access Manager."""
        self.origin = origin
        self.subscribe_key = SUBSCRIBE_KEY
        self.publish_key = signer.publish_key if signer else SUBSCRIBE_KEY
        self.secret_key = signer.secret_key if signer else None
        """The key that signs, if Access Manager is on."""
        self._signer = signer
        self._timetokens: dict[Action, str] = {}

    def react(
        self,
        channel: str,
        message_timetoken: str | int,
        value: str,
        user: str,
        type: str = "reaction",
    ) -> str:
        """Let a user react. Return the action timetoken.

        Raises:
            ReactionRefusedError: the user has reacted so already.
        """
        action = Action.of(channel, message_timetoken, value, user, type)
        body = {"type": type, "value": value}
        answer = self._change("POST", "", action, body)
        timetoken = str(answer["data"]["actionTimetoken"])
        self._timetokens[action] = timetoken
        return timetoken

    def remove(
        self,
        channel: str,
        message_timetoken: str | int,
        value: str,
        user: str,
        type: str = "reaction",
    ) -> None:
        """Remove a reaction that ``react`` added.

        Raises:
            ReactionRefusedError: there is none.
        """
        action = Action.of(channel, message_timetoken, value, user, type)
        timetoken = self._timetokens.pop(action, None)
        if timetoken is None:
            raise ReactionRefusedError(f"There is no {action}.")
        self._change("DELETE", f"/action/{timetoken}", action)

    def grant(
        self,
        user: str | None,
        channels: Sequence[str],
        *,
        minutes: int = 60,
        permissions: int = ALL_ACTIONS,
    ) -> str:
        """Return an access token for a user, or for everybody, in these channels.

        ``permissions`` is a sum: 1 to read, 2 to write, 8 to delete.

        Raises:
            ReactionRefusedError: Access Manager is off.
        """
        resources = {"channels": dict.fromkeys(channels, permissions)}
        granted: dict[str, object] = {"resources": resources, "patterns": {}}
        if user is not None:
            granted["uuid"] = user
        body = {"ttl": minutes, "permissions": granted}
        path = f"/v3/pam/{SUBSCRIBE_KEY}/grant"
        status, answer = self._send("POST", path, {}, body)
        if status != 200:
            problem = f"There is no token: {status}, {answer['message']}"
            raise ReactionRefusedError(problem)
        return str(answer["data"]["token"])

    def positions(self) -> dict[str, int]:
        """Return where in the stream the last message of each channel is."""
        _, truth = get_json(self.origin, "/emulator/truth")
        positions = truth["positions"].items()
        return {channel: int(position) for channel, position in positions}

    def _change(
        self,
        method: str,
        rest: str,
        action: Action,
        body: object = None,
    ) -> Any:
        channel = quote(action.channel, safe="")
        message = quote(action.message_timetoken, safe="")
        place = f"/v1/message-actions/{SUBSCRIBE_KEY}/channel/{channel}/message/{message}"
        query = {"uuid": action.user}
        status, answer = self._send(method, f"{place}{rest}", query, body)
        if status != 200:
            problem = answer["error"]["message"]
            raise ReactionRefusedError(f"PubNub refuses {action}: {status}, {problem}")
        return answer

    def _send(
        self,
        method: str,
        path: str,
        query: dict[str, str],
        body: object,
    ) -> tuple[int, Any]:
        text = None if body is None else json.dumps(body)
        if self._signer:
            query = self._signer.signed(method, path, query, text or "")
        return _request(self.origin, method, f"{path}?{urlencode(query)}", text)


def get_json(address: str, path: str) -> tuple[int, Any]:
    """Return the status and the document of a page."""
    return _request(address, "GET", path)


def _request(
    address: str,
    method: str,
    path: str,
    text: str | None = None,
) -> tuple[int, Any]:
    # This client uses no proxy, whatever the environment says.
    connection = HTTPConnection(address, timeout=ANSWER_SECONDS)
    try:
        connection.request(method, path, text)
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()
