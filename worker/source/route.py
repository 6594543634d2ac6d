"""The way to PubNub: its host and port, and the proxy between, if there is one.

Proxies are what the environment names: HTTPS_PROXY, HTTP_PROXY and NO_PROXY.
"""

from base64 import b64encode
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Final, Self
from urllib.parse import SplitResult, unquote, urlsplit
from urllib.request import getproxies_environment

from worker.errors import ConfigurationError
from worker.source.no_proxy import is_listed

NOT_PUBNUB: Final = "Is this PubNub? Check PUBNUB_ORIGIN, PUBNUB_TLS, HTTPS_PROXY or HTTP_PROXY."
"""The advice for a web page that PubNub would not send."""
CHECK_ORIGIN: Final = "Check PUBNUB_ORIGIN."
PORTS: Final = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy that the environment names."""

    setting: str
    """HTTPS_PROXY or HTTP_PROXY."""
    scheme: str
    address: str
    """Host and port."""
    credentials: str | None = field(default=None, repr=False)
    """The header ``Proxy-Authorization``."""

    @property
    def url(self) -> str:
        """The URL, without credentials."""
        return f"{self.scheme}://{self.address}"

    @property
    def headers(self) -> dict[str, str]:
        """The headers for the proxy itself."""
        if self.credentials is None:
            return {}
        return {"Proxy-Authorization": self.credentials}

    @classmethod
    def parse(cls, setting: str, text: str) -> Self:
        """Return the proxy of ``http://user:password@host:port``.

        Raises:
            ConfigurationError: The text names no such proxy. The error does not quote it.
        """
        text = text if "://" in text else f"http://{text}"
        try:
            url = urlsplit(text)
            usual_port = PORTS[url.scheme]
            address = _address(url.hostname or "", url.port or usual_port)
            return cls(setting, url.scheme, address, _credentials(url))
        except (KeyError, ValueError):
            raise ConfigurationError(
                f"{setting} names no proxy that can be used. Write it as "
                "http://host:port or http://user:password@host:port; special "
                "characters in a password (/ @ : # ? [ ] %) must be percent-encoded."
            ) from None


@dataclass(frozen=True, slots=True)
class Route:
    """Where PubNub is, and how it is reached."""

    address: str
    """Host and port."""
    tls: bool
    proxy: Proxy | None = None

    @classmethod
    def to(cls, origin: str, *, tls: bool) -> Self:
        """Return the route to an origin, by the proxy that the environment names.

        Raises:
            ConfigurationError: The environment names a proxy that cannot be used.
        """
        scheme = "https" if tls else "http"
        url = urlsplit(f"{scheme}://{origin}")
        host = url.hostname or ""
        port = url.port or PORTS[scheme]
        address = _address(host, port)
        return cls(address, tls, _proxy(scheme, host, port))

    @property
    def if_silent(self) -> str:
        """What to look at if nothing answers at all."""
        if self.proxy is None:
            return f"Is {self.address} right, and does a firewall let it through? {CHECK_ORIGIN}"
        return f"Does the proxy {self.proxy.address} answer? Check {self.proxy.setting}."

    @property
    def if_foreign(self) -> str:
        """What to look at if an answer is not PubNub's. A tunnel is PubNub's own."""
        if self.proxy is None or self.tls:
            return NOT_PUBNUB
        proxy = self.proxy
        return f"Does the proxy {proxy.address} answer in PubNub's place? Check {proxy.setting}."


def _proxy(scheme: str, host: str, port: int) -> Proxy | None:
    """Return the proxy for this host; None for this machine itself."""
    variables = getproxies_environment()
    text = variables.get(scheme)
    if not text or _is_loopback(host):
        return None
    if is_listed(host, port, variables.get("no", "")):
        return None
    return Proxy.parse(f"{scheme.upper()}_PROXY", text)


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _address(host: str, port: int) -> str:
    if not host:
        raise ValueError("no host")
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _credentials(url: SplitResult) -> str | None:
    if url.username is None:
        return None
    user, password = unquote(url.username), unquote(url.password or "")
    encoded = b64encode(f"{user}:{password}".encode())
    return f"Basic {encoded.decode()}"
