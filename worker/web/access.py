"""Who may ask a site: whoever has the token, or everybody on this machine.

A site without a token listens on loopback only. Even there a request must name a host of
loopback: else any page in a browser could read it, by a name that leads to 127.0.0.1,
and a proxy on this machine would open it to the world.
"""

import hmac
import re
from dataclasses import dataclass, field
from typing import Final

from aiohttp import hdrs, web

from worker.web.problems import ProblemError

_LOOPBACK_HOST: Final = re.compile(
    r"(localhost|127\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}|\[::1\])(:[0-9]{1,5})?",
    re.IGNORECASE,
)
_SCHEME: Final = "bearer"


@dataclass(frozen=True, slots=True)
class Access:
    """The rule of a site. ``token`` is None only on loopback."""

    token: str | None = field(repr=False)

    def check(self, request: web.BaseRequest) -> None:
        """Make sure that a request may be answered.

        Raises:
            ProblemError: 401 without the token; 403 if a site without a token is asked by a name.
        """
        if self.token is None:
            _check_host(request)
        elif not self.admits(_bearer(request)):
            raise ProblemError(
                401,
                "Send the token in the header Authorization: Bearer <token>.",
                headers={hdrs.WWW_AUTHENTICATE: 'Bearer realm="tally"'},
            )

    def admits(self, token: str) -> bool:
        """Tell whether this is the token. How long that takes says nothing about it."""
        expected = self.token or ""
        is_same = hmac.compare_digest(_bytes(token), _bytes(expected))
        return is_same and bool(expected)


def _check_host(request: web.BaseRequest) -> None:
    host = request.headers.get(hdrs.HOST, "localhost")
    if not _LOOPBACK_HOST.fullmatch(host):
        raise ProblemError(
            403,
            "Without a token only this machine may ask, by the name localhost or 127.0.0.1. "
            "For others set TALLY_API_TOKEN.",
        )


def _bearer(request: web.BaseRequest) -> str:
    scheme, _, token = request.headers.get(hdrs.AUTHORIZATION, "").partition(" ")
    return token.strip() if scheme.lower() == _SCHEME else ""


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
