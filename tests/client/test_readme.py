"""What ``client/README.md`` shows is what happens."""

import asyncio
import re
from contextlib import redirect_stdout
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path
from typing import Any, Final, cast

import pytest
from msgspec.structs import replace
from redis.asyncio import Redis

import reaction_tally
from reaction_tally import Reactor, RecentMessage, TallyReader, TopMessage, Who
from reaction_tally.keys import Keys
from tests.histories import ANA, BEN, CHANNEL, MESSAGE, added, at
from tests.redis_server import RedisServer
from tests.store.examples import apply
from worker.store.store import Store

README: Final = Path(__file__).parents[2].joinpath("client", "README.md").read_text("utf-8")
ADDRESS: Final = "redis://localhost:6379/0"
MESSAGES: Final = [MESSAGE, "17600000002110345"]
"""The messages of the README; the second one has no reactions."""
YESTERDAY: Final = datetime(2001, 9, 9, 1, 46, 40, tzinfo=UTC)
"""Just before the reactions."""


@pytest.fixture
async def room(claimed: Redis) -> Redis:
    """Two users who like the first message, and one who votes."""
    votes = [
        added(3, replace(ANA, type="vote", value="up")),
        added(4, replace(ANA, type="vote", value="5")),
    ]
    await apply(Store(claimed, Keys()), [added(1, BEN), added(2), *votes])
    await cast("Any", claimed).sadd(Keys().channels, CHANNEL)
    return claimed


def recipes() -> dict[str, str]:
    """Return what is wanted → the code that does it."""
    table = README.partition("## Recipes")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| ([^|`]+) \| `([^`]+)`", table, re.MULTILINE)
    return dict(rows)


def evaluated(code: str, url: str) -> Any:
    """Return what a recipe gives."""
    with TallyReader.from_url(url) as reader:
        page = reader.page(CHANNEL, MESSAGES, me="ben", names=2)
        message = page.messages[MESSAGE]
        who = reader.who(CHANNEL, MESSAGE, "reaction", "👍", limit=1)
        names: dict[str, Any] = {"reader": reader, "page": page, "message": message}
        names |= {"messages": MESSAGES, "who": who, "yesterday": YESTERDAY}
        return eval(code, names)  # noqa: S307 - the code of the README


EXPECTED: Final[dict[str, Any]] = {
    "the counts of a message": {"reaction": {"👍": 2}, "vote": {"up": 1, "5": 1}},
    "the counts of many": {MESSAGE: {"reaction": {"👍": 2}, "vote": {"up": 1, "5": 1}}, "5": {}},
    "one type, no read receipts": [("👍", 2, False)],
    "what is mine, and since when": [("👍", 2, True), ("5", 1, False), ("up", 1, False)],
    "who chose a value, oldest first": Who(
        reactors=(Reactor("ben", at(1)), Reactor("ana", at(2))), total=2
    ),
    "the next page of them": Who(reactors=(Reactor("ana", at(2)),), total=2),
    "up minus down": 1,
    "the average of stars": 5,
    "the messages with the most reactions": (TopMessage(MESSAGE, 4),),
    "of one value, among messages of the last day": (TopMessage(MESSAGE, 2),),
    "which messages changed last": (RecentMessage(MESSAGE, 1_000_000_000_000),),
    "every channel": {CHANNEL},
    "may some counts be wrong now?": False,
    "does a worker run?": None,
    "is this the right Redis?": None,
}


def simplified(result: Any) -> Any:
    """Return the reactions of the first message, if it is a page."""
    if not isinstance(result, reaction_tally.Page):
        return result
    return [(it.value, it.count, it.mine) for it in result.messages[MESSAGE].reactions]


def test_every_recipe_is_known() -> None:
    """So that none goes untried."""
    assert recipes().keys() == EXPECTED.keys()


@pytest.mark.parametrize("wanted", EXPECTED)
async def test_a_recipe_gives_what_is_wanted(room: Redis, valkey: RedisServer, wanted: str) -> None:
    """Each of the table."""
    result = await asyncio.to_thread(evaluated, recipes()[wanted], valkey.url)

    assert simplified(result) == EXPECTED[wanted]


async def test_a_chat_screen_is_read_as_shown(room: Redis, valkey: RedisServer) -> None:
    """The program of the first section."""
    part = README.partition("## What a chat screen needs")[2].partition("\n## ")[0]
    lines = re.findall(r"^    (.*)$|^$", part, re.MULTILINE)
    program = "\n".join(lines).replace(ADDRESS, valkey.url)
    shown = StringIO()

    def run() -> None:
        with redirect_stdout(shown):
            exec(program, {})  # noqa: S102 - the code of the README

    await asyncio.to_thread(run)

    assert shown.getvalue().splitlines()[0] == "👍 2 True ben ana "


def test_every_error_is_listed() -> None:
    """And every listed error exists."""
    listed = set(re.findall(r"^\| `(\w+Error)` \|", README, re.MULTILINE)) | {"TallyReadError"}
    exported = {name for name in reaction_tally.__all__ if name.endswith("Error")}

    assert listed == exported
