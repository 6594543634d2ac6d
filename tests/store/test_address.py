"""REDIS_URL is the address of one server. What redis-py would misunderstand is refused."""

import pytest

from worker.errors import ConfigurationError
from worker.store.connection import connect


@pytest.mark.parametrize(
    ("path", "database"), [("", None), ("/", None), ("/0", 0), ("/15", 15), ("?db=3", 3)]
)
def test_a_database_is_a_number(path: str, database: int | None) -> None:
    """Behind the host."""
    redis = connect(f"redis://localhost{path}")
    assert redis.connection_pool.connection_kwargs.get("db") == database


@pytest.mark.parametrize("path", ["/1/2", "/cache", "/0/", "/-1", "//1", "/1canary"])
@pytest.mark.parametrize("scheme", ["redis", "rediss"])
def test_another_path_is_refused(scheme: str, path: str) -> None:
    """redis-py would use database 12 for /1/2, and 0 for /cache."""
    with pytest.raises(ConfigurationError) as error:
        connect(f"{scheme}://localhost{path}")
    assert "a path that is no number of a database" in str(error.value)
    assert "redis://host:6379/0" in str(error.value)
    assert "canary" not in str(error.value)


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("redis://:canary@a:6379,b:6379/0", "several hosts. Write redis+cluster://"),
        ("sentinel://a", "must begin with one of redis://, rediss://, unix://, redis+cluster://"),
    ],
)
def test_the_address_of_several_servers_is_named(url: str, problem: str) -> None:
    """For what it is, and with the right form."""
    with pytest.raises(ConfigurationError) as error:
        connect(url)
    assert problem in str(error.value)
    assert "canary" not in str(error.value)


@pytest.mark.parametrize(
    "url",
    [
        "redis://:pa/canary@localhost",
        "redis://localhost:1x/canary@b",
        "redis://:p@canary#w/rd@127.0.0.1:6379/0",
        "redis://:p#canary@127.0.0.1:6379/0",
        "redis://:p@canary?w/rd@127.0.0.1:6379/0",
        "redis://:p@canary?canary=rd@127.0.0.1:6379/0",
        "rediss://:p@canary/w#rd@127.0.0.1:6379/0",
        "redis://:p[canary@127.0.0.1:6379/0",
    ],
)
def test_a_special_character_in_a_password_is_explained(url: str) -> None:
    """It must be percent-encoded."""
    with pytest.raises(ConfigurationError, match="must be percent-encoded") as error:
        connect(url)
    assert "canary" not in str(error.value)


@pytest.mark.parametrize("port", ["99999", "canary", "-1"])
def test_a_port_that_is_none_is_named(port: str) -> None:
    """And no character of a password is suspected."""
    with pytest.raises(ConfigurationError, match="has a port that is no number") as error:
        connect(f"redis://localhost:{port}/0")
    assert "canary" not in str(error.value)
    assert "password must" not in str(error.value)


@pytest.mark.parametrize(
    ("query", "name"),
    [
        ("foo=canary", "foo"),
        ("socket_timeout=canary", "socket_timeout"),
        ("socket_timeout=2&health_check_interval=canary", "health_check_interval"),
        ("ssl_ca_certs=/canary", "ssl_ca_certs"),
        ("max_connections=-1", "max_connections"),
    ],
)
def test_an_option_that_cannot_be_used_is_named(query: str, name: str) -> None:
    """Without its value."""
    with pytest.raises(ConfigurationError) as error:
        connect(f"redis://localhost/0?{query}")
    assert f"an option that cannot be used: {name}. " in str(error.value)
    assert "canary" not in str(error.value)
    assert "(ssl_…) need an address that begins with rediss://" in str(error.value)


def test_options_of_redis_py_are_taken() -> None:
    """They count more than those of the worker."""
    redis = connect("redis://localhost/0?socket_timeout=2&client_name=tally")
    assert redis.connection_pool.connection_kwargs["socket_timeout"] == 2
