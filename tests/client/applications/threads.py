"""A chat page on the standard library's HTTP server: a thread for each request."""

import json
import os
import sys
from dataclasses import asdict
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final
from urllib.parse import parse_qs, urlsplit

from reaction_tally import TallyReader, TallyReadError

reader: Final = TallyReader.from_url(os.environ["REDIS_URL"])


class Chat(BaseHTTPRequestHandler):
    """Answers ``/room?me=ana&message=…&message=…``."""

    def do_GET(self) -> None:
        """Answer the reactions to some messages."""
        address = urlsplit(self.path)
        query = parse_qs(address.query)
        (me,) = query["me"]
        try:
            page = reader.page(address.path[1:], query["message"], me=me, names=2)
        except TallyReadError as error:
            self.answer(HTTPStatus.SERVICE_UNAVAILABLE, str(error))
        else:
            self.answer(HTTPStatus.OK, asdict(page))

    def answer(self, status: HTTPStatus, document: object) -> None:
        """Send a document."""
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing."""


class Server(ThreadingHTTPServer):
    """A server to which many connect at once."""

    request_queue_size = 1024
    daemon_threads = True


with Server(("127.0.0.1", 0), Chat) as server:
    sys.stdout.write(f"{server.server_port}\n")
    sys.stdout.flush()
    server.serve_forever()
