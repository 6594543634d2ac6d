"""Files of certificates that a setting names: can TLS use them?

Without this, a wrong file is a failure of every connection, or a traceback.
"""

import os
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from worker.errors import ConfigurationError
from worker.regular_files import open_regular

AUTHORITIES: Final = (
    "Name a PEM file with the certificates of the authorities to trust: "
    "it begins with -----BEGIN CERTIFICATE-----."
)
OWN: Final = (
    "ssl_certfile is a PEM file with this client's certificate, and ssl_keyfile one with its key."
)


def check_environment() -> None:
    """Check SSL_CERT_FILE, or else SSL_CERT_DIR, if the environment has it.

    Raises:
        ConfigurationError: The file or folder cannot be used.
    """
    file = os.environ.get("SSL_CERT_FILE")
    folder = os.environ.get("SSL_CERT_DIR")
    if file:
        check_authorities("SSL_CERT_FILE", file)
    elif folder:
        _check_folder("SSL_CERT_DIR", folder)


def check_authorities(setting: str, path: str) -> None:
    """Check a file of authorities.

    Raises:
        ConfigurationError: It is missing, unreadable, empty, or not PEM.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        _read(path)
        context.load_verify_locations(cafile=path)
    except ssl.SSLError:
        raise ConfigurationError(
            f"{setting}: the file {path} holds no certificate in PEM form. {AUTHORITIES}"
        ) from None
    except (OSError, ValueError) as error:
        raise _unreadable(setting, path, error, AUTHORITIES) from None


def check_redis_options(options: Mapping[str, Any]) -> None:
    """Check the files that the options of a ``rediss://`` address name.

    Raises:
        ConfigurationError: One of them cannot be used.
    """
    authorities = options.get("ssl_ca_certs")
    folder = options.get("ssl_ca_path")
    if authorities:
        check_authorities("ssl_ca_certs in REDIS_URL", authorities)
    elif folder:
        _check_folder("ssl_ca_path in REDIS_URL", folder)
    else:
        check_environment()
    if options.get("ssl_certfile"):
        _check_own(options)


def _check_own(options: Mapping[str, Any]) -> None:
    certificate = options["ssl_certfile"]
    key = options.get("ssl_keyfile") or certificate
    password = options.get("ssl_password") or ""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    for option, path in (("ssl_certfile", certificate), ("ssl_keyfile", key)):
        try:
            _read(path)
        except (OSError, ValueError) as error:
            raise _unreadable(f"{option} in REDIS_URL", path, error, OWN) from None
    try:
        # Without a password OpenSSL would ask at the terminal.
        context.load_cert_chain(certificate, key, password=password)
    except (ssl.SSLError, ValueError):
        raise ConfigurationError(
            f"REDIS_URL: the certificate {certificate} and the key {key} do not fit together, "
            f"are not in PEM form, or need ssl_password. {OWN}"
        ) from None


def _read(path: str) -> None:
    """Raise what opening the file raises: OpenSSL does not say it."""
    with open_regular(Path(path)) as file:
        file.read(1)


def _check_folder(setting: str, path: str) -> None:
    if not Path(path).is_dir():
        raise ConfigurationError(
            f"{setting}: {path} is no folder. "
            "Name a folder of certificates, as c_rehash makes it, or a file in SSL_CERT_FILE."
        )


def _unreadable(
    setting: str,
    path: str,
    error: OSError | ValueError,
    advice: str,
) -> ConfigurationError:
    reason = getattr(error, "strerror", None) or "its name cannot be used"
    return ConfigurationError(f"{setting}: the file {path} cannot be read: {reason}. {advice}")
