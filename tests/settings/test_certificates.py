"""A file of certificates that TLS cannot use is a sentence, before anything connects."""

import os
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlencode

import pytest
import trustme

from worker.certificates import check_authorities, check_environment
from worker.errors import ConfigurationError
from worker.store.connection import connect

PEM = "it begins with -----BEGIN CERTIFICATE-----."


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with an authority, a certificate, its key, and files that are none."""
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    monkeypatch.delenv("SSL_CERT_DIR", raising=False)
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    own = authority.issue_cert("client.test")
    own.cert_chain_pems[0].write_to_path(tmp_path / "own.pem")
    own.private_key_pem.write_to_path(tmp_path / "own.key")
    trustme.CA().private_key_pem.write_to_path(tmp_path / "other.key")
    (tmp_path / "empty").touch()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "text").write_text("canary", "utf-8")
    (tmp_path / "broken.pem").write_text(
        "-----BEGIN CERTIFICATE-----\ncanary\n-----END CERTIFICATE-----\n", "utf-8"
    )
    return tmp_path


WRONG = [
    ("missing", "cannot be read: No such file or directory."),
    ("", "cannot be read: Is a directory."),
    ("empty", "holds no certificate in PEM form."),
    ("text", "holds no certificate in PEM form."),
    ("broken.pem", "holds no certificate in PEM form."),
    ("own.key", "holds no certificate in PEM form."),
    ("pipe", "cannot be read: it is not a file."),
    ("a\0b", "cannot be read: its name cannot be used."),
]


@pytest.mark.parametrize(("name", "words"), WRONG)
def test_a_wrong_file_of_authorities_is_named(files: Path, name: str, words: str) -> None:
    """With its variable and what it should be. What is in it is not quoted."""
    path = str(files / name)
    said = refusal(lambda: check_authorities("SSL_CERT_FILE", path))

    assert said.startswith(f"SSL_CERT_FILE: the file {path} {words} ")
    assert said.endswith(PEM)


@pytest.mark.parametrize(("name", "words"), WRONG)
def test_a_wrong_file_in_the_address_of_redis_is_named(files: Path, name: str, words: str) -> None:
    """It is the option ``ssl_ca_certs``."""
    path = str(files / name)
    said = refusal(lambda: connect(address(ssl_ca_certs=path)))

    assert said.startswith(f"ssl_ca_certs in REDIS_URL: the file {path} {words} ")


def test_files_that_fit_are_accepted(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of authorities, and of a client's own certificate."""
    monkeypatch.setenv("SSL_CERT_FILE", str(files / "ca.pem"))
    check_environment()
    connect(address(ssl_certfile=f"{files}/own.pem", ssl_keyfile=f"{files}/own.key"))


@pytest.mark.parametrize(
    ("certificate", "key", "words"),
    [
        ("missing", "own.key", "ssl_certfile in REDIS_URL: the file "),
        ("own.pem", "missing", "ssl_keyfile in REDIS_URL: the file "),
        ("own.pem", "other.key", "do not fit together"),
        ("own.pem", "text", "are not in PEM form"),
        ("text", "own.key", "are not in PEM form"),
    ],
)
def test_a_wrong_client_certificate_is_named(
    files: Path, certificate: str, key: str, words: str
) -> None:
    """With its key, whichever of both is wrong."""
    options = {"ssl_certfile": f"{files}/{certificate}", "ssl_keyfile": f"{files}/{key}"}

    assert words in refusal(lambda: connect(address(**options)))


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "SSL_CERT_DIR"])
def test_redis_trusts_what_the_environment_names(
    files: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    """If its address names no authorities, and only over TLS."""
    monkeypatch.setenv(variable, f"{files}/missing")

    assert refusal(lambda: connect(address())).startswith(f"{variable}: ")
    connect(address(ssl_ca_certs=f"{files}/ca.pem"))
    connect("redis://localhost")


def address(**options: str) -> str:
    """Return an address of Redis over TLS."""
    return f"rediss://localhost?{urlencode(options)}"


def refusal(check: Callable[[], object]) -> str:
    """Return the sentence of the error, which quotes no file."""
    with pytest.raises(ConfigurationError) as error:
        check()
    assert "canary" not in str(error.value)
    return str(error.value)
