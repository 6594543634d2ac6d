"""``make pictures``: draw the pictures of ``deploy/pictures`` anew, or those that are named."""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from tests.pictures import board, screens

FOLDER: Final = Path(__file__).parents[2] / "deploy" / "pictures"
Draw = Callable[[Path], Awaitable[None]]
SCREENS: Final[dict[str, Draw]] = {
    "top": screens.draw_top,
    "show": screens.draw_show,
}
"""Name → what draws it into a file; those of a terminal."""
PICTURES: Final[dict[str, Draw]] = {**SCREENS, "board": board.draw_board}
"""All of them. That of the board takes five minutes."""
MOST_BYTES: Final = 120_000


async def draw(names: list[str]) -> None:
    """Draw pictures; say how large each is."""
    FOLDER.mkdir(exist_ok=True)
    for name in names or PICTURES:
        picture = FOLDER / f"{name}.png"
        await PICTURES[name](picture)
        size = picture.stat().st_size
        sys.stdout.write(f"{picture.relative_to(FOLDER.parents[1])}: {size:,} bytes\n")
        assert size <= MOST_BYTES, f"{picture} is too large for a document"


if __name__ == "__main__":
    asyncio.run(draw(sys.argv[1:]))
