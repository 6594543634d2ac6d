"""Makes the pictures of the board: a seeded crowd, a worker, a real browser.

python -m tests.pictures board                       # deploy/pictures/board.png
python -m tests.pictures.board --to FOLDER           # every width, dark and light, to look at
"""

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from random import Random
from typing import Final

from tests.board.chromium import Chromium, Page
from tests.waiting import wait_until
from worker.demo.credentials import Credentials
from worker.demo.crowd import CHANNELS, Crowd, places
from worker.demo.processes import WorkerProcess
from worker.emulator import Emulator
from worker.store.embedded import embedded_server

SEED: Final = 7
RATES: Final = (40, 90, 150, 110, 60, 130)
"""Reactions a second, one after the other: a line that never changes shows little."""
SECONDS: Final = 300.0
WIDTHS: Final = {360: 780, 1280: 900, 2560: 1440}
SIZE: Final = (1280, 560)
SCALE: Final = 0.78
"""The picture in the documents is smaller than the page: 120 kB at most."""


@asynccontextmanager
async def running_board(folder: Path, seconds: float) -> AsyncIterator[str]:
    """Yield the address of a board, when a crowd has reacted for so long and goes on."""
    async with (
        embedded_server(folder / "valkey") as redis_url,
        Emulator(seed=SEED) as emulator,
        AsyncExitStack() as stack,
    ):
        settings = {
            "PUBNUB_ORIGIN": emulator.origin,
            "PUBNUB_TLS": "false",
            "PUBNUB_SUBSCRIBE_KEY": "demo",
            "REDIS_URL": redis_url,
            "TALLY_CHANNELS": ",".join(CHANNELS),
            "TALLY_SETTLE_SECONDS": "2",
            "TALLY_RECONCILE_SECONDS": "60",
            "TALLY_RECONCILE_FULL_SECONDS": "60",
            "TALLY_LOG_FORMAT": "json",
            "TALLY_HTTP": "127.0.0.1:0",
            "TALLY_BOARD": "on",
        }
        worker = await WorkerProcess.start(folder, settings)
        stack.push_async_callback(worker.end)
        await wait_until(worker.board)
        reacting = asyncio.create_task(_react(emulator.origin))
        stack.callback(reacting.cancel)
        address = worker.board()
        assert address
        sys.stderr.write(f"{address}, for {seconds:g} s\n")
        yield address


async def _react(origin: str) -> None:
    messages = places(time.time(), Random(SEED))
    number = 0
    while True:
        rate = RATES[number % len(RATES)]
        number += 1
        async with Crowd(origin, rate, SEED + number, messages, lambda _: Credentials()) as crowd:
            await crowd.react(SECONDS / 12)


async def take(page: Page, width: int, height: int, scheme: str, scale: float = 1) -> bytes:
    """Return one picture."""
    await page.resize(width, height, scale)
    await page.prefer(color_scheme=scheme, reduced_motion="reduce")
    await asyncio.sleep(2)  # for people: every line is drawn anew by then
    return await page.picture()


async def make(seconds: float, *, is_all: bool) -> dict[str, bytes]:
    """Return the pictures by their names."""
    pictures: dict[str, bytes] = {}
    chromium = Chromium()
    try:
        with tempfile.TemporaryDirectory(prefix="board-") as folder:
            async with running_board(Path(folder), seconds) as address, chromium.browser() as tabs:
                page = await tabs.page()
                await page.resize(*SIZE, SCALE)  # before: the plots are drawn for this scale
                await page.open(address)
                await page.shows("demo.", ".message")
                await asyncio.sleep(seconds)
                pictures["board"] = await take(page, *SIZE, "light", SCALE)
                for width, height in WIDTHS.items() if is_all else ():
                    for scheme in ("light", "dark"):
                        name = f"board-{width}-{scheme}"
                        pictures[name] = await take(page, width, height, scheme)
    finally:
        chromium.end()
    return pictures


async def draw_board(picture: Path) -> None:
    """Draw the picture of the documents into a file."""
    pictures = await make(SECONDS, is_all=False)
    await asyncio.to_thread(picture.write_bytes, pictures["board"])


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--to", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=SECONDS)
    chosen = parser.parse_args()
    chosen.to.mkdir(parents=True, exist_ok=True)
    pictures = asyncio.run(make(chosen.seconds, is_all=True))
    for name, picture in pictures.items():
        path = chosen.to / f"{name}.png"
        path.write_bytes(picture)
        sys.stderr.write(f"{path}: {len(picture):,} bytes\n")


if __name__ == "__main__":
    main()
