"""Addresses of a Redis Cluster and of Sentinels, for the worker and for readers."""

from collections.abc import Callable
from typing import Any

import pytest

from reaction_tally import AsyncTallyReader, InvalidNameError, TallyReader
from reaction_tally.addresses import AddressError, Kind, read_servers
from worker.errors import ConfigurationError
from worker.store.connection import connect

TAKERS = [connect, TallyReader.from_url, AsyncTallyReader.from_url]


def test_one_server_is_no_matter_of_these() -> None:
    """Its address has an older reader."""
    assert read_servers("redis://localhost:6379/0") is None
    assert read_servers("unix:///run/redis.sock") is None


def test_nodes_of_a_cluster() -> None:
    """Ports have a default; IPv6 stands in brackets; a name may have capitals."""
    address = read_servers("rediss+cluster://ana:p%2Fw%25@a.example:7000,[::1]:7001,b/0?protocol=3")

    assert address
    assert (address.kind, address.has_tls) == (Kind.CLUSTER, True)
    assert address.hosts == (("a.example", 7000), ("::1", 7001), ("b", 6379))
    assert address.data_options == {"username": "ana", "password": "p/w%", "protocol": 3}


def test_sentinels_and_their_service() -> None:
    """They have a user of their own, and the same TLS and time limits."""
    address = read_servers(
        "rediss+sentinel://:data@a,b:5000/my%20chats/3"
        "?sentinel_password=watch&ssl_ca_certs=/ca&socket_timeout=1&client_name=x"
    )

    assert address
    assert address.hosts == (("a", 26379), ("b", 5000))
    assert address.service == "my chats"
    shared = {"ssl_ca_certs": "/ca", "socket_timeout": 1.0}
    defaults = {"socket_connect_timeout": 2.0, "ssl": True}
    assert address.sentinel_options == {"password": "watch", **defaults, **shared}
    own = {"db": 3, "password": "data", "client_name": "x"}
    assert address.data_options == {**own, **shared}


@pytest.mark.parametrize("take", TAKERS, ids=["worker", "threads", "asyncio"])
@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("redis+cluster://:canary@a:1,b:2/1", "one database, of number 0"),
        ("redis+cluster://:canary@a:1?db=2", "one database, of number 0"),
        ("redis+cluster://:canary@a:x", "a port that is no number"),
        ("redis+cluster://a:99999", "a port that is no number"),
        ("redis+cluster://a,,b", "a host without a name"),
        ("redis+cluster://", "a host without a name"),
        ("redis+cluster://:p@canary@a", "must be percent-encoded"),
        ("redis+cluster://:p/canary@a", "must be percent-encoded"),
        ("redis+cluster://:canary@a,:canary@b", "once, before the first host"),
        ("redis+cluster://:p#canary@a", "must be percent-encoded"),
        ("redis+sentinel://:p?canary@a/chats", "must be percent-encoded"),
        ("redis+sentinel://:canary@a:1", "names no service"),
        ("redis+sentinel://:canary@a:1/?db=0", "names no service"),
        ("redis+sentinel://:canary@a:1/chats/x", "no service and number of a database"),
        ("redis+sentinel://:canary@a:1/chats/0/1", "no service and number of a database"),
        ("redis+other://:canary@a:1", "must begin with one of"),
        ("redis://:canary@a:1,b:2", ""),
    ],
)
def test_a_wrong_address_is_refused(take: Callable[[str], Any], url: str, problem: str) -> None:
    """With what is wrong, and without a part of a password."""
    with pytest.raises((ConfigurationError, InvalidNameError)) as error:
        take(url)

    assert problem in str(error.value)
    assert "canary" not in str(error.value)


@pytest.mark.parametrize("take", TAKERS, ids=["worker", "threads", "asyncio"])
@pytest.mark.parametrize("place", ["redis+cluster://a", "redis+sentinel://a/chats"])
@pytest.mark.parametrize(
    "option", ["canary=1", "socket_timeout=canary", "ssl_ca_certs=/canary", "max_connections=-1"]
)
def test_an_option_that_redis_py_does_not_take(
    take: Callable[[str], Any], place: str, option: str
) -> None:
    """Is refused at once, and not at the first use."""
    with pytest.raises((ConfigurationError, InvalidNameError), match=r"redis-py|max_connections"):
        take(f"{place}?{option}")


def test_an_error_is_a_sentence_behind_the_name_of_a_setting() -> None:
    """REDIS_URL, or the address of Redis."""
    with pytest.raises(AddressError, match=r"^names no service\."):
        read_servers("redis+sentinel://a")
    with pytest.raises(ConfigurationError, match=r"^REDIS_URL names no service\."):
        connect("redis+sentinel://a")
    with pytest.raises(InvalidNameError, match=r"^The address of Redis names no service\."):
        TallyReader.from_url("redis+sentinel://a")
