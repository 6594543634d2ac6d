"""What the scripts of a day's work are called with."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from tests.benchmarks.contenders.order import CURSOR

FOLDER: Final = Path(__file__).parent
ACTION: Final = 3
"""The kind of message that is an action."""


def source(name: str) -> str:
    """Return the text of a script."""
    return FOLDER.joinpath(name).read_text("utf-8")


def changes(messages: list[Any]) -> Iterator[tuple[tuple[str, str], tuple[str, str, str, str]]]:
    """Yield the keys and the arguments of each event."""
    for message in messages:
        if message.get("e") != ACTION:
            continue
        payload = message["d"]
        data = payload["data"]
        place = f"tally:{{{message['c']}}}"
        timetoken = data["messageTimetoken"]
        tally = f"{data['type']}:{data['value']}"
        yield (
            (f"{place}:actions:{timetoken}", f"{place}:counts:{timetoken}"),
            (payload["event"], f"{tally}:{message['i']}", tally, data["actionTimetoken"]),
        )


def whole_answer(cursor: str, messages: list[Any]) -> tuple[list[str], list[str]]:
    """Return keys and arguments of one call for an answer."""
    all_keys, all_arguments = [CURSOR], [cursor]
    for keys, arguments in changes(messages):
        all_keys += keys
        all_arguments += arguments
    return all_keys, all_arguments
