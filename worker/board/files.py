"""The files of the page, and the headers that keep it to itself."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from aiohttp import web

from worker.web.site import Call, Handler

FOLDER: Final = Path(__file__).parent / "static"
TYPES: Final = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}
"""What is served. The other files of the folder are for people."""
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS: Final = {
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
INDEX: Final = "index.html"


def file_routes(prefix: str) -> Mapping[str, Handler]:
    """Return the routes of all files; each is read once, now."""
    paths = [path for path in sorted(FOLDER.iterdir()) if path.suffix in TYPES]
    return {_route(prefix, path): _handler(path) for path in paths}


def _route(prefix: str, path: Path) -> str:
    return prefix if path.name == INDEX else f"{prefix}/{path.name}"


def _handler(path: Path) -> Handler:
    body = path.read_bytes()
    content_type = TYPES[path.suffix]

    async def answer(_: Call) -> web.StreamResponse:
        return web.Response(
            body=body,
            content_type=content_type,
            charset="utf-8",
            headers=HEADERS,
        )

    return answer
