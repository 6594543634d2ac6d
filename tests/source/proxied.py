"""A network where only a proxy may go out: PubNub speaks TLS behind it, under a name of its own."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import trustme

from tests.source.http_proxy import HttpProxy
from tests.source.tls_server import tls_context, tls_in_front_of

HOST: Final = "pubnub.test"
"""A name that only the proxy knows."""


@asynccontextmanager
async def behind_a_proxy(
    origin: str, folder: Path
) -> AsyncIterator[tuple[HttpProxy, Mapping[str, str]]]:
    """Put TLS and a proxy in front of ``host:port``. Yield the proxy, and a command's settings."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "authorities.pem")
    async with tls_in_front_of(origin, tls_context(authority, HOST)) as port:
        proxy = HttpProxy(port, user="ana:canary")
        async with proxy.address() as address:
            settings = {
                "PUBNUB_ORIGIN": HOST,
                "PUBNUB_TLS": "true",
                "SSL_CERT_FILE": str(folder / "authorities.pem"),
                "HTTPS_PROXY": f"http://ana:canary@{address}",
            }
            yield proxy, settings
