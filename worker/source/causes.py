"""Why PubNub gave no answer: in words, with what to do.

A cause is found by the type of an exception, or by its number.
The words of libraries are not used:
they may quote a URL, with its token.
"""

import errno
import os
import resource
import socket
import ssl
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

import aiohttp

from worker import open_files
from worker.source.route import Proxy, Route

CHECK_WAY: Final = {
    True: "Check PUBNUB_ORIGIN, the firewall, HTTPS_PROXY.",
    False: "Check PUBNUB_ORIGIN, the firewall, HTTP_PROXY.",
}
"""PUBNUB_TLS → what to check, with the variable that names the proxy."""
CHECK_TLS: Final = "Check the port in PUBNUB_ORIGIN, and PUBNUB_TLS."

_NOT_TLS: Final = {
    "HTTP_REQUEST",
    "PACKET_LENGTH_TOO_LONG",
    "UNKNOWN_PROTOCOL",
    "WRONG_VERSION_NUMBER",
}
"""OpenSSL's reasons if the other side does not speak TLS."""
_CHECK_CLOCK: Final = "Check the clock of this machine."
_OTHER_HOST: Final = (
    "its certificate is for another host name",
    "Check PUBNUB_ORIGIN.",
)
_UNTRUSTED: Final = (
    "its certificate is signed by an authority that is not trusted here",
    "Name a file with that authority's certificate in SSL_CERT_FILE.",
)
_CERTIFICATES: Final = {
    9: ("its certificate is not valid yet", _CHECK_CLOCK),
    10: ("its certificate has expired", _CHECK_CLOCK),
    62: _OTHER_HOST,
    64: _OTHER_HOST,
}
"""OpenSSL's codes for a certificate that is refused → words and advice."""
_UNKNOWN_NAME: Final = (
    socket.EAI_NONAME,
    getattr(socket, "EAI_NODATA", None),
)
_REFUSED: Final = "connection refused"
_NO_ROUTE: Final = "this machine has no route to it"
_TOO_LATE: Final = "no connection in time"
_FORBIDDEN: Final = "this machine does not permit the connection"
_NUMBERS: Final = {
    errno.ECONNREFUSED: _REFUSED,
    errno.ENETUNREACH: _NO_ROUTE,
    errno.EHOSTUNREACH: _NO_ROUTE,
    errno.ETIMEDOUT: _TOO_LATE,
    errno.EACCES: _FORBIDDEN,
    errno.EPERM: _FORBIDDEN,
}
"""The number of an error of the system → words."""


@dataclass(frozen=True, slots=True)
class Cause:
    """Why there is no answer."""

    words: str
    advice: str = ""
    is_of_request: bool = False
    """Whether another request may succeed."""

    def sentence(self, route: Route, request: str) -> str:
        """Return what a person reads.

        ``request`` names what was asked.
        """
        asked = ""
        if self.is_of_request:
            asked = f" ({request})"
        parts = (
            f"PubNub at {route.address}",
            f"does not answer{asked}:",
            f"{self.words}.",
            self.advice,
        )
        return " ".join(parts).rstrip()


def cause_of(
    error: Exception,
    route: Route,
    *,
    is_tunnelled: bool = False,
) -> Cause:
    """Return the cause for an exception.

    It is one of aiohttp, or of the system.
    Without a tunnel behind a proxy, the proxy is what answers.
    """
    cause = _of_exception(error, route)
    proxy = route.proxy
    if proxy and cause.is_of_request and not is_tunnelled:
        return _of_proxy(cause, proxy)
    return cause


def _of_exception(error: Exception, route: Route) -> Cause:
    match error:
        case aiohttp.ClientHttpProxyError():
            return proxy_refusal(error.status, route)
        case aiohttp.ClientConnectorError():
            return _of_connection(error, route)
        case aiohttp.ConnectionTimeoutError():
            return _of_slow_connection(route)
        case TimeoutError():
            words = "no answer in time"
            return Cause(words, is_of_request=True)
        case aiohttp.ClientResponseError():
            words = "what came is not HTTP"
        case _:
            words = "the connection broke before the answer was whole"
    advice = "" if route.tls else CHECK_TLS
    return Cause(words, advice, is_of_request=True)


def proxy_refusal(status: int, route: Route) -> Cause:
    """Return the cause if the proxy answers in PubNub's place."""
    assert route.proxy  # noqa: S101 - for mypy: a proxy has answered
    setting = route.proxy.setting
    refused = "the connection"
    advice = f"Ask who runs the proxy to permit {route.address}, or change {setting}."
    if status == HTTPStatus.PROXY_AUTHENTICATION_REQUIRED:
        advice = f"Write its user and password in {setting}: http://user:password@host:port."
    if status == HTTPStatus.PROXY_AUTHENTICATION_REQUIRED and route.proxy.credentials:
        refused = f"the user or password of {setting}"
        advice = f"Correct {setting}: http://user:password@host:port."
    words = f"the proxy {route.proxy.address} refuses {refused} ({_phrase(status)})"
    return Cause(words, advice)


def _phrase(status: int) -> str:
    try:
        known = HTTPStatus(status)
    except ValueError:
        return str(status)
    return f"{status} {known.phrase}"


def _of_slow_connection(route: Route) -> Cause:
    if route.proxy is None:
        return Cause(_TOO_LATE, CHECK_WAY[route.tls])
    proxy = route.proxy
    return Cause(
        f"{_TOO_LATE} through the proxy {proxy.address}",
        f"Check {proxy.setting}.",
    )


def _of_connection(
    error: aiohttp.ClientConnectorError,
    route: Route,
) -> Cause:
    if open_files.is_without_files(error.os_error) or _lacks_files():
        return _no_files()
    cause = _of_error(error, route)
    if route.proxy and _is_at(error, route.proxy):
        return _of_proxy(cause, route.proxy)
    return cause


def _of_error(
    error: aiohttp.ClientConnectorError,
    route: Route,
) -> Cause:
    cause = error.os_error
    if isinstance(cause, ssl.SSLCertVerificationError):
        return _of_certificate(cause)
    if isinstance(cause, ssl.SSLError):
        words = _of_handshake(cause)
        return Cause(words, CHECK_TLS)
    if isinstance(cause, ConnectionResetError) and route.tls:
        words = "the connection was closed during the TLS handshake"
        return Cause(words, CHECK_TLS)
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        words = _of_name(cause)
    else:
        words = _of_number(cause)
    return Cause(words, CHECK_WAY[route.tls])


def _of_certificate(
    error: ssl.SSLCertVerificationError,
) -> Cause:
    words, advice = _CERTIFICATES.get(error.verify_code, _UNTRUSTED)
    return Cause(words, advice)


def _of_name(error: OSError) -> str:
    if error.errno in _UNKNOWN_NAME:
        return "there is no such host name"
    return "the host name cannot be looked up now"


def _of_handshake(error: ssl.SSLError) -> str:
    reason = getattr(error, "reason", None)
    if reason in _NOT_TLS:
        return "what listens there does not speak TLS"
    name = reason or type(error).__name__
    return f"the TLS handshake failed ({name})"


def _of_number(error: OSError) -> str:
    number = error.errno or 0
    kind = type(error).__name__
    name = errno.errorcode.get(number, kind)
    unknown = f"no connection ({name})"
    return _NUMBERS.get(number, unknown)


def _of_proxy(cause: Cause, proxy: Proxy) -> Cause:
    words = f"the proxy {proxy.address} does not answer ({cause.words})"
    advice = f"Check {proxy.setting}."
    if cause.is_of_request:
        advice = f"{advice} Is what listens there a proxy for HTTP?"
    return Cause(words, advice, cause.is_of_request)


def _is_at(
    error: aiohttp.ClientConnectorError,
    proxy: Proxy,
) -> bool:
    """Tell whether the connection to the proxy failed.

    Otherwise the one behind it failed.
    """
    kind = aiohttp.ClientProxyConnectionError
    if isinstance(error, kind):
        return True
    address = f"{error.host}:{error.port}"
    return address == proxy.address


def _lacks_files() -> bool:
    """Tell whether this process can open no more files.

    The lookup of a name says only that it failed.
    """
    try:
        file = os.open(os.devnull, os.O_RDONLY)
    except OSError as error:
        return open_files.is_without_files(error)
    os.close(file)
    return False


def _no_files() -> Cause:
    kind = resource.RLIMIT_NOFILE
    limit, _ = resource.getrlimit(kind)
    return Cause(
        f"{open_files.WORDS} (its limit is {limit})",
        open_files.ADVICE,
    )
