"""Errors as RFC 9457 has them: ``application/problem+json``. None of them quotes a request."""

import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Final, TypeVar

from aiohttp import web

CONTENT_TYPE: Final = "application/problem+json"
ResponseT = TypeVar("ResponseT", bound=web.StreamResponse)
SERVER: Final = "tally"
"""The name in the header ``Server``: no versions."""


class ProblemError(Exception):
    """Why a request is refused.

    ``detail`` is a sentence for the caller.
    It begins with the name of the wrong parameter. It may stand in any log, so it quotes nothing.
    """

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        parameter: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """``parameter`` is the name of the one that is wrong."""
        if parameter is not None:
            detail = f"{parameter}: {detail}"
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.parameter = parameter
        self.headers = dict(headers or {})

    def response(self) -> web.Response:
        """Return what the caller gets."""
        response = problem_response(self.status, self.detail, self.parameter)
        response.headers.update(self.headers)
        return response


def problem_response(status: int, detail: str, parameter: str | None = None) -> web.Response:
    """Return a problem as a response that ends its connection."""
    title = HTTPStatus(status).phrase
    document = {"type": "about:blank", "title": title, "status": status, "detail": detail}
    if parameter is not None:
        document["parameter"] = parameter
    body = json.dumps(document).encode() + b"\n"
    return final(web.Response(status=status, body=body, content_type=CONTENT_TYPE))


def require(is_right: object, detail: str, parameter: str | None = None) -> None:
    """Refuse a request that is wrong.

    Raises:
        ProblemError: 400.
    """
    if not is_right:
        raise ProblemError(400, detail, parameter=parameter)


def final(response: ResponseT) -> ResponseT:
    """Let a response name no version, be kept by no cache, and end its connection."""
    response.headers.setdefault("Cache-Control", "no-store")
    response.headers["Server"] = SERVER
    response.force_close()
    return response
