"""The four requests of the client."""

from collections.abc import Awaitable, Callable
from typing import Final

from worker.domain.position import Cursor
from worker.source.client import Client

LATER: Final = Cursor("17600000000000001", 12)
Ask = Callable[[Client], Awaitable[object]]
ASKS: Final[dict[str, Ask]] = {
    "subscribe": lambda client: client.subscribe(["a room", "b"], ["a group", "b"], LATER),
    "message_actions": lambda client: client.message_actions("room"),
    "group_channels": lambda client: client.group_channels("g"),
    "time": lambda client: client.time(),
}
