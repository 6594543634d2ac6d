"""The golden copies: one folder for each release."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from tests.keyspaces.dump import Line
from worker.emulator import State

HERE: Final = Path(__file__).parent


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """How a copy was made."""

    version: str
    commit: str
    settings: dict[str, str]
    """The settings of the last worker that wrote; without addresses."""


@dataclass(frozen=True, slots=True)
class Copy:
    """One golden copy."""

    folder: Path

    @property
    def made(self) -> Made:
        """How it was made."""
        return Made(**json.loads((self.folder / "made.json").read_text("utf-8")))

    @property
    def lines(self) -> list[Line]:
        """What Redis held, a line for each key."""
        text = (self.folder / "redis.jsonl").read_text("utf-8")
        return [Line(**json.loads(line)) for line in text.split("\n") if line]

    def save(self, made: Made, lines: list[Line], state: State) -> None:
        """Write the copy."""
        self.folder.mkdir(exist_ok=True)
        self._write("made.json", json.dumps(asdict(made), indent=1))
        self._write("redis.jsonl", "\n".join(map(_json, map(asdict, lines))))
        self._write("pubnub.jsonl", "\n".join(map(_json, _messages(state))))

    def restore_pubnub(self, state: State) -> None:
        """Let a PubNub list what it listed then."""
        for line in (self.folder / "pubnub.jsonl").read_text("utf-8").split("\n"):
            channel, message, actions = json.loads(line or '["", "", []]')
            for type, value, uuid, at in actions:
                state.add(channel, message, type, value, uuid, published=False, at=int(at))

    def _write(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text + "\n", "utf-8")


def golden_copies() -> list[Copy]:
    """Return the golden copies, the oldest release first."""
    folders = [path.parent for path in HERE.glob("*/made.json")]
    return [Copy(folder) for folder in sorted(folders, key=_version)]


def _version(folder: Path) -> list[int]:
    return list(map(int, folder.name.split(".")))


def _messages(state: State) -> Iterator[list[object]]:
    """Yield channel, message, and type, value, user and timetoken of each of its actions."""
    for channel in sorted(state.truth()):
        messages: dict[str, list[list[str]]] = {}
        for action in state.actions(channel):
            message, type, value, uuid = action.identity
            at = str(action.timetoken)
            messages.setdefault(message, []).append([type, value, uuid, at])
        for message, actions in sorted(messages.items()):
            yield [channel, message, actions]


def _json(value: object) -> str:
    # Texts of users may have line separators in them, which editors take for new lines.
    return json.dumps(value, ensure_ascii=False).replace("\u2028", "\\u2028")
