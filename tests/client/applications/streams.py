"""A chat page on asyncio's streams: a task for each request."""

import asyncio
import json
import os
import sys
from dataclasses import asdict
from http import HTTPStatus
from typing import Final
from urllib.parse import parse_qs, urlsplit

from reaction_tally import AsyncTallyReader, TallyReadError

reader: Final = AsyncTallyReader.from_url(os.environ["REDIS_URL"])


async def answer(incoming: asyncio.StreamReader, outgoing: asyncio.StreamWriter) -> None:
    """Answer ``/room?me=ana&message=…&message=…``."""
    request = await incoming.readuntil(b"\r\n\r\n")
    _, target, _ = request.decode().split(" ", 2)
    address = urlsplit(target)
    query = parse_qs(address.query)
    (me,) = query["me"]
    document: object
    try:
        page = await reader.page(address.path[1:], query["message"], me=me, names=2)
        status, document = HTTPStatus.OK, asdict(page)
    except TallyReadError as error:
        status, document = HTTPStatus.SERVICE_UNAVAILABLE, str(error)
    body = json.dumps(document).encode()
    head = f"HTTP/1.1 {status} {status.phrase}\r\nContent-Length: {len(body)}\r\n"
    outgoing.write(f"{head}Connection: close\r\n\r\n".encode() + body)
    await outgoing.drain()
    outgoing.close()


async def main() -> None:
    """Serve until the process is ended."""
    server = await asyncio.start_server(answer, "127.0.0.1", 0, backlog=1024)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await server.serve_forever()


asyncio.run(main())
