"""The emulator of PubNub as a process, and users who react there, over HTTP."""

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlencode

from reaction_tally.testing.action import Action
from reaction_tally.testing.errors import ReactionRefusedError
from reaction_tally.testing.processes import Process, running, wait_for

SUBSCRIBE_KEY: Final = "demo"
ANSWER_SECONDS: Final = 60.0
_ORIGIN: Final = "PUBNUB_ORIGIN="


@contextmanager
def pubnub_emulator() -> Iterator["PubNubEmulator"]:
    """Run an emulator of PubNub until the block ends: no worker, no Redis.

    >>> with pubnub_emulator() as pubnub:
    ...     pubnub.react("room", "17600000001728660", "👍", "ana")

    Raises:
        NotInstalledError: the worker's distribution is not installed.
        ServiceFailedError: the process does not start. The text says why.
    """
    with (
        temporary_folder() as folder,
        running_emulator(folder) as process,
    ):
        yield PubNubEmulator(origin_of(process))


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """Yield a folder that is deleted in the end."""
    folder = tempfile.TemporaryDirectory(prefix="tally-", ignore_cleanup_errors=True)
    with folder as path:
        yield Path(path)


@contextmanager
def running_emulator(folder: Path) -> Iterator[Process]:
    """Run an emulator in this folder."""
    with running(["emulator", "--port", "0"], folder, {}) as process:
        yield process


def origin_of(emulator: Process) -> str:
    """Return host and port of an emulator, as soon as it has written them."""

    def find() -> str | None:
        for line in emulator.lines():
            word, _, _ = line.partition(" ")
            if word.startswith(_ORIGIN):
                return word.removeprefix(_ORIGIN)
        return None

    return wait_for(find, emulator)


class PubNubEmulator:
    """A PubNub for tests, and users who react.

    The SDK of an application uses it as its ``origin``, without TLS.
    """

    def __init__(self, origin: str) -> None:
        """``origin`` is host and port."""
        self.origin = origin
        self.subscribe_key = SUBSCRIBE_KEY
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
        query = urlencode({"uuid": action.user})
        path = f"{place}{rest}?{query}"
        status, answer = _request(self.origin, method, path, body)
        if status != 200:
            problem = answer["error"]["message"]
            raise ReactionRefusedError(f"PubNub refuses {action}: {status}, {problem}")
        return answer


def get_json(address: str, path: str) -> tuple[int, Any]:
    """Return the status and the document of a page."""
    return _request(address, "GET", path)


def _request(
    address: str,
    method: str,
    path: str,
    body: object = None,
) -> tuple[int, Any]:
    # This client uses no proxy, whatever the environment says.
    connection = HTTPConnection(address, timeout=ANSWER_SECONDS)
    try:
        text = None if body is None else json.dumps(body)
        connection.request(method, path, text)
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()
