"""Signs requests to PubNub with a secret key, as a server does."""

import hmac
import time
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote


@dataclass(frozen=True, slots=True)
class Signer:
    """The two keys that sign."""

    publish_key: str
    secret_key: str

    def signed(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        body: str,
    ) -> dict[str, str]:
        """Return the query with a timestamp and a signature."""
        stamped = {**query, "timestamp": str(int(time.time()))}
        pairs = [f"{name}={_encoded(stamped[name])}" for name in sorted(stamped)]
        lines = [method, self.publish_key, path, "&".join(pairs), body]
        text = "\n".join(lines)
        digest = hmac.digest(self.secret_key.encode(), text.encode(), "sha256")
        signature = urlsafe_b64encode(digest).decode().rstrip("=")
        return {**stamped, "signature": f"v2.{signature}"}


def _encoded(value: str) -> str:
    return quote(value, safe="").replace("~", "%7E")
