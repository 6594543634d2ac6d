"""Why TLS to Redis failed: in words, with what to change in REDIS_URL."""

import ssl
from typing import Final

OTHER_HOSTS: Final = (62, 64)
"""OpenSSL's codes for a certificate of another name or IP address."""

_OTHER_HOST: Final = (
    "its certificate is for another host name. Write the host name of the certificate in REDIS_URL."
)
_OTHER_AUTHORITY: Final = (
    "its certificate is signed by an authority that is not trusted here. "
    "Name a file with that authority's certificate: "
    "ssl_ca_certs in REDIS_URL (rediss://HOST:6380/0?ssl_ca_certs=/path/ca.pem), "
    "or SSL_CERT_FILE."
)
_CLOCK: Final = "Check the clock of this machine."
_CERTIFICATES: Final = {
    9: f"its certificate is not valid yet. {_CLOCK}",
    10: f"its certificate has expired. {_CLOCK}",
    **dict.fromkeys(OTHER_HOSTS, _OTHER_HOST),
}
"""OpenSSL's code for a certificate → the cause, and what to do."""

_OWN_FILES: Final = (
    "a certificate in ssl_certfile and its key in ssl_keyfile: "
    "rediss://HOST:6380/0?ssl_certfile=/path/client.pem&ssl_keyfile=/path/client.key."
)
_WANTED: Final = f"it wants a certificate of the client. Name in REDIS_URL {_OWN_FILES}"
_REFUSED: Final = (
    "it refuses the certificate of this client. "
    f"Name in REDIS_URL {_OWN_FILES} "
    "The server must trust the authority that signed it."
)
_ALERTS: Final = {
    "CERTIFICATE_REQUIRED": _WANTED,
    "UNKNOWN_CA": _REFUSED,
    "BAD_CERTIFICATE": _REFUSED,
    "UNSUPPORTED_CERTIFICATE": _REFUSED,
    "CERTIFICATE_REVOKED": _REFUSED,
    "CERTIFICATE_EXPIRED": _REFUSED,
    "CERTIFICATE_UNKNOWN": _REFUSED,
}
"""How the name of a server's alert ends → the cause, and what to do."""
CLOSED: Final = (
    "it closes the connection after the TLS handshake. "
    "If it wants a certificate of the client, "
    f"name in REDIS_URL {_OWN_FILES}"
)
"""What to say of a server that gives no reason."""


def tls_error(error: BaseException | None) -> ssl.SSLError | None:
    """Return the error of TLS that redis-py raised another one for."""
    if error is None or isinstance(error, ssl.SSLError):
        return error
    cause = error.__cause__ or error.__context__
    return tls_error(cause)


def explain_tls(error: ssl.SSLError) -> str:
    """Return the cause, and what to do."""
    if isinstance(error, ssl.SSLCertVerificationError):
        code = error.verify_code
        return _CERTIFICATES.get(code, _OTHER_AUTHORITY)
    reason = error.reason or type(error).__name__
    _, _, alert = reason.partition("_ALERT_")
    unknown = f"the TLS handshake failed ({reason})."
    return _ALERTS.get(alert, unknown)
