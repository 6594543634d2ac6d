"""Pictures of ``tally top`` and ``tally show``: real commands' rows, of a seeded crowd."""

import asyncio
import io
import random
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, cast

from rich.console import Console
from rich.terminal_theme import MONOKAI

from reaction_tally.keys import SCHEMA, Keys
from tests.pictures.browser import take_picture
from tests.redis_server import RedisServer
from worker.cli.screens.message import print_message
from worker.cli.screens.top import print_top
from worker.domain.action import Added, Identity, Origin
from worker.reading.show import read_message
from worker.reading.top import Wanted, read_top
from worker.store.connection import connect
from worker.store.store import Store

NOW: Final = 1_760_000_000.0
COLUMNS: Final = 98
MESSAGE: Final = "17599136001728660"
VALUES: Final = {"👍": 12, "❤️": 7, "🎉": 4, "😂": 2, "👍🏽": 1, "🏳️‍🌈": 1}
"""Value → how often it is chosen."""
USERS: Final = ("ana", "ben", "cem", "dan", "eve", "fay", "gus", "hal")
ME: Final = "cem-72"
CROWD: Final = (
    ("room", MESSAGE, 90),
    ("news.sport", "17599998304410021", 64),
    ("café", "17599890420085513", 41),
    ("room", "17599971250330482", 23),
    ("team.design", "17598000071442107", 9),
)
"""Channel, message, reactions."""
PAGE: Final = """<body style="margin:0;background:#0c0c0c">{svg}</body>"""
SVG: Final = """<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}"
 xmlns="http://www.w3.org/2000/svg"><style>
.{unique_id}-matrix {{ font-family: monospace; font-size: {char_height}px; }}
{styles}</style><defs>
<clipPath id="{unique_id}-clip-terminal"><rect width="100%" height="100%" /></clipPath>
{lines}</defs>
<g transform="translate(12.2, 12.2)">
{backgrounds}<g class="{unique_id}-matrix">{matrix}</g></g></svg>"""
"""A terminal without a window around it, in a font that every machine has."""
SIZE: Final = re.compile(r'viewBox="0 0 ([\d.]+) ([\d.]+)"')
SCALE: Final = 8 / 12.2
"""So a cell is eight pixels wide, and there is no line between two blocks of a bar."""


async def draw_top(picture: Path) -> None:
    """Draw ``tally top``."""
    async with crowd() as url:
        top = await read_top(url, "tally", None, Wanted(limit=5))
    await draw("tally top --limit 5", lambda console: print_top(console, top, None, NOW), picture)


async def draw_show(picture: Path) -> None:
    """Draw ``tally show``."""
    async with crowd() as url:
        shown = await read_message(url, "tally", "room", MESSAGE, me=ME, users=3)
    command = f"tally show room {MESSAGE} --me {ME}"
    await draw(command, lambda console: print_message(console, shown, NOW), picture)


@asynccontextmanager
async def crowd() -> AsyncIterator[str]:
    """Yield the address of a Redis where a crowd has reacted, the same one every time."""
    chance = random.Random(7)
    with RedisServer() as server:
        async with connect(server.url) as redis:
            await cast("Any", redis).hset(Keys().meta, "schema", SCHEMA)
            for channel, message, reactions in CROWD:
                added = [react(chance, channel, message, each) for each in range(reactions)]
                await Store(redis, Keys()).apply_all([(channel, added)], Origin.LIVE)
                await cast("Any", redis).sadd(Keys().channels, channel)
        yield server.url


def react(chance: random.Random, channel: str, message: str, number: int) -> Added:
    """Return one user's reaction, some time after the message."""
    (value,) = chance.choices(list(VALUES), list(VALUES.values()))
    user = f"{chance.choice(USERS)}-{number}"
    action = str(int(message) + chance.randrange(int(NOW * 10**7) - int(message)))
    return Added(Identity(channel, message, "reaction", value, user), action, action)


async def draw(command: str, show: Callable[[Console], None], picture: Path) -> None:
    """Draw a command and what it shows."""
    console = Console(
        record=True,
        width=COLUMNS,
        file=io.StringIO(),
        force_terminal=True,
        color_system="truecolor",
        highlight=False,
        markup=False,
        emoji=False,
    )
    console.print(f"$ {command}")
    console.print()
    show(console)
    svg = console.export_svg(code_format=SVG, theme=MONOKAI)
    size = SIZE.search(svg)
    assert size
    width, height = (round(float(pixels) * SCALE) for pixels in size.groups())
    svg = re.sub(
        r' width="[\d.]+" height="[\d.]+"', f' width="{width}" height="{height}"', svg, count=1
    )
    await asyncio.to_thread(take_picture, PAGE.format(svg=svg), picture, width, height)
