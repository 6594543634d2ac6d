"""A chat page with FastAPI."""

import os
from typing import Annotated, Final

from fastapi import FastAPI, Query

from reaction_tally import AsyncTallyReader, Page

reader: Final = AsyncTallyReader.from_url(os.environ["REDIS_URL"])
app: Final = FastAPI()


@app.get("/{channel}")
async def show(channel: str, message: Annotated[list[str], Query()], me: str) -> Page:
    """Answer ``/room?me=ana&message=…&message=…``."""
    return await reader.page(channel, message, me=me, names=2)
