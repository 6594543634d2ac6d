"""The way to make an access token in ``install.md`` asks for what it says, and no more."""

import json
import re
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from typing import Any

from tests.deploy.dockerfile import ROOT

READ, MANAGE = 1, 4
INSTALL = (ROOT / "deploy/install.md").read_text("utf-8")


class Grants(BaseHTTPRequestHandler):
    """Answers each request for a token, and records it."""

    asked: list[Any]

    def do_POST(self) -> None:
        """Return a token."""
        length = int(self.headers["Content-Length"])
        self.asked.append(json.loads(self.rfile.read(length)))
        body = json.dumps({"status": 200, "data": {"token": "made-token"}}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *_: object) -> None:
        """Keep silent."""


def test_the_recipe_makes_a_token_that_only_reads() -> None:
    """It runs as it stands, and prints the token."""
    (recipe,) = re.findall(r"```python\n(.*?)```", INSTALL, re.DOTALL)
    asked: list[Any] = []
    server = HTTPServer(("127.0.0.1", 0), type("Recorder", (Grants,), {"asked": asked}))
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        here = f"config.origin = '127.0.0.1:{server.server_port}'\nconfig.ssl = False\n\ngrant ="
        program = recipe.replace("grant =", here, 1).replace("…", "x")
        ran = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
        )
    finally:
        server.shutdown()
        server.server_close()

    assert ran.stdout == "made-token\n", ran.stderr
    ((ttl, permissions),) = [(request["ttl"], request["permissions"]) for request in asked]
    assert ttl == 43_200
    assert permissions["uuid"] == "reaction-tally"
    assert permissions["resources"]["channels"] == {"room": READ}
    assert permissions["resources"]["groups"] == {"sports": READ | MANAGE}
    ((pattern, right),) = permissions["patterns"]["channels"].items()
    assert right == READ
    assert all(re.search(pattern, name) for name in ("news.*", "news.today"))
    assert not re.search(pattern, "newsroom")
    assert not any(permissions[kind][other] for kind, other in _others())


def _others() -> list[tuple[str, str]]:
    """Return all that a worker needs no right for.

    The SDK repeats channels as spaces, their older name.
    """
    kinds = ("users", "uuids")
    return [("resources", kind) for kind in kinds] + [
        ("patterns", kind) for kind in (*kinds, "groups")
    ]
