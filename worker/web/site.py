"""A group of routes below a prefix, such as /v1: its parameters, its access, its errors."""

import re
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qs, unquote

import structlog
from aiohttp import hdrs, web

from worker.telemetry import metrics
from worker.web.access import Access
from worker.web.connection import connection_of
from worker.web.problems import ProblemError, final, problem_response

MAX_QUERY_FIELDS: Final = 200
ALLOWED_HEADERS: Final = "Authorization, If-None-Match, Last-Event-ID"
EXPOSED_HEADERS: Final = "ETag"
PREFLIGHT_SECONDS: Final = "600"
UNKNOWN: Final = "unknown"
"""The route, in metrics, of a path that no route has."""

_PARAMETER: Final = re.compile(r"\\{(\w+)\\}")
"""A parameter of a path, after ``re.escape``."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Call:
    """A request to a route."""

    request: web.BaseRequest
    path: Mapping[str, str]
    """Parameters of the path, by name."""
    query: Mapping[str, list[str]]
    """Values of the query, by name, in the order in which they came."""
    headers: tuple[tuple[str, str], ...] = ()
    """What a stream sends besides its own headers. Other responses get them by themselves."""


Handler = Callable[[Call], Awaitable[web.StreamResponse]]
"""Returns the response to a request. It may raise ``ProblemError``."""


class Route:
    """A path such as ``/v1/channels/{channel}/top``, and what answers it."""

    def __init__(self, path: str, handler: Handler) -> None:
        self.path = path
        self.handler = handler
        self._pattern = re.compile(_PARAMETER.sub(r"(?P<\1>[^/]+)", re.escape(path)))

    def match(self, raw_path: str) -> dict[str, str] | None:
        """Return the raw parameters of a path; None if it has another pattern."""
        match = self._pattern.fullmatch(raw_path)
        return match.groupdict() if match else None


class Site:
    """Answers what is asked below a prefix.

    A path such as ``/v1/channels/{channel}/top`` has parameters. Each is one segment of the path:
    ``%2F`` in it is a ``/`` of the parameter.
    """

    def __init__(
        self,
        prefix: str,
        routes: Mapping[str, Handler],
        access: Access,
        *,
        origins: tuple[str, ...] = (),
        open_paths: frozenset[str] = frozenset(),
    ) -> None:
        """``origins`` are those of CORS, or ``*``. ``open_paths`` need no access."""
        self.prefix = prefix
        self.paths = tuple(routes)
        self._routes = [Route(path, handler) for path, handler in routes.items()]
        self._no_route = Route(UNKNOWN, self._refuse_path)
        self._access = access
        self._origins = origins
        self._open_paths = open_paths

    def has(self, path: str) -> bool:
        """Tell whether a raw path is below the prefix."""
        return path == self.prefix or path.startswith(f"{self.prefix}/")

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """Return the response to a request below the prefix."""
        route, raw = self._find(request.rel_url.raw_path)
        path = route.path
        try:
            response = await self._answer(request, route, raw)
        except ProblemError as problem:
            response = problem.response()
        except Exception:
            log.exception("page_failed", path=path)
            response = problem_response(500, "It failed; the log of the worker says why.")
            if request.writer.output_size > 0:  # a part of another response is sent already
                connection_of(request).cut()
        if not response.prepared:
            response.headers.extend(self._cors(request))
            final(response)
        metrics.http_requests.labels(path, str(response.status)).inc()
        return response

    async def _answer(
        self,
        request: web.BaseRequest,
        route: Route,
        raw: Mapping[str, str],
    ) -> web.StreamResponse:
        if not connection_of(request).ask():
            raise ProblemError(503, "Too many requests at once.", headers={hdrs.RETRY_AFTER: "1"})
        if request.method == hdrs.METH_OPTIONS and self._origins:
            return _preflight()
        if route.path not in self._open_paths:
            self._access.check(request)
        if request.method != hdrs.METH_GET:
            raise ProblemError(405, "GET only.", headers={hdrs.ALLOW: self._methods()})
        headers = tuple(self._cors(request))
        return await route.handler(Call(request, _path_of(raw), _query_of(request), headers))

    def _find(self, raw_path: str) -> tuple[Route, Mapping[str, str]]:
        for route in self._routes:
            raw = route.match(raw_path)
            if raw is not None:
                return route, raw
        return self._no_route, {}

    async def _refuse_path(self, _: Call) -> web.StreamResponse:
        raise ProblemError(404, f"There are {', '.join(self.paths)}.")

    def _methods(self) -> str:
        return "GET, OPTIONS" if self._origins else "GET"

    def _cors(self, request: web.BaseRequest) -> Iterator[tuple[str, str]]:
        """Yield the headers that let a page of another origin read a response."""
        if not self._origins:
            return
        if "*" in self._origins:
            yield hdrs.ACCESS_CONTROL_ALLOW_ORIGIN, "*"
        else:
            yield hdrs.VARY, "Origin"
            origin = request.headers.get(hdrs.ORIGIN)
            if origin not in self._origins:
                return
            yield hdrs.ACCESS_CONTROL_ALLOW_ORIGIN, origin
        yield hdrs.ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED_HEADERS


def _preflight() -> web.Response:
    headers = {
        hdrs.ACCESS_CONTROL_ALLOW_METHODS: "GET",
        hdrs.ACCESS_CONTROL_ALLOW_HEADERS: ALLOWED_HEADERS,
        hdrs.ACCESS_CONTROL_MAX_AGE: PREFLIGHT_SECONDS,
    }
    return web.Response(status=204, headers=headers)


def _path_of(raw: Mapping[str, str]) -> dict[str, str]:
    """Decode parameters of a path.

    aiohttp's router would leave bytes that are no UTF-8 as they are, like text.
    """
    parameters = {}
    for name, text in raw.items():
        try:
            parameters[name] = unquote(text, errors="strict")
        except UnicodeDecodeError:
            raise ProblemError(400, "the text is not UTF-8.", parameter=name) from None
    return parameters


def _query_of(request: web.BaseRequest) -> dict[str, list[str]]:
    try:
        return parse_qs(
            request.rel_url.raw_query_string,
            keep_blank_values=True,
            errors="strict",
            max_num_fields=MAX_QUERY_FIELDS,
        )
    except UnicodeDecodeError:
        raise ProblemError(400, "The query is not UTF-8.") from None
    except ValueError:
        raise ProblemError(400, f"The query has more than {MAX_QUERY_FIELDS} parameters.") from None
