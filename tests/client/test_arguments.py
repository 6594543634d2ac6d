"""A wrong argument raises: it never reads as an empty answer, or as an outage."""

from typing import Any, cast

import pytest
from redis import Redis as BlockingRedis
from redis.asyncio import Redis

from reaction_tally import AsyncTallyReader, InvalidNameError, TallyReader, TallyReadError
from reaction_tally.keys import Keys
from tests.histories import CHANNEL, MESSAGE, added
from tests.store.examples import apply
from worker.store.store import Store

KEYS = Keys()
WRONG: list[tuple[type[Exception], dict[str, Any]]] = [
    (TypeError, {"me": 5}),
    (TypeError, {"me": b"ben"}),
    (TypeError, {"types": "reaction"}),
    (TypeError, {"types": [None]}),
    (TypeError, {"names": None}),
    (TypeError, {"names": True}),
    (TypeError, {"names": 2.5}),
    (ValueError, {"names": -1}),
    (ValueError, {"names": 51}),
    (ValueError, {"me": "\ud800"}),
]


@pytest.mark.parametrize(("error", "options"), WRONG)
async def test_a_page_refuses_wrong_options(
    reader: Any, error: type[Exception], options: dict[str, Any]
) -> None:
    """Each by its name."""
    with pytest.raises(error, match=r"a user|types|a type|names"):
        await reader.page(CHANNEL, [MESSAGE], **options)


@pytest.mark.parametrize("timetoken", ["1.76e16", "", f"{MESSAGE}\n", "-5", "١٧"])
async def test_a_timetoken_has_digits_only(reader: Any, timetoken: str) -> None:
    """Another one would be a message without reactions."""
    with pytest.raises(ValueError, match="digits 0 to 9"):
        await reader.get(CHANNEL, timetoken)


async def test_a_channel_is_text(reader: Any) -> None:
    """Channels are a list of them."""
    for channel in (None, 5, b"room"):
        with pytest.raises(TypeError, match="a channel is text"):
            await reader.get(channel, MESSAGE)
    with pytest.raises(TypeError, match="channels are a list"):
        await reader.in_doubt(CHANNEL)
    with pytest.raises(TypeError, match="message timetokens are a list"):
        await reader.page(CHANNEL, int(MESSAGE))
    with pytest.raises(ValueError, match="1000 messages at most"):
        await reader.page(CHANNEL, range(1_001))


async def test_anything_that_yields_values_is_a_list(claimed: Redis, reader: Any) -> None:
    """Also where Redis has forgotten the script, and it is sent again."""
    await apply(Store(claimed, KEYS), [added(1)])
    await cast("Any", claimed).hset(KEYS.owed(CHANNEL), "overflow", "1")
    await claimed.script_flush()

    page = await reader.page(CHANNEL, iter([MESSAGE]), types=(each for each in ["receipt"]))

    assert page.messages[MESSAGE].reactions == ()
    assert await reader.in_doubt(each for each in [CHANNEL]) == {CHANNEL}


async def test_no_types_are_no_reactions(claimed: Redis, reader: Any) -> None:
    """None is every type."""
    await apply(Store(claimed, KEYS), [added(1)])

    assert (await reader.page(CHANNEL, [MESSAGE], types=[])).messages[MESSAGE].total == 0
    assert (await reader.page(CHANNEL, [MESSAGE], types=None)).messages[MESSAGE].total == 1


@pytest.mark.parametrize("count", ["abc", "1.0", ""])
async def test_a_count_that_is_no_number_is_an_error_of_ours(
    claimed: Redis, reader: Any, count: str
) -> None:
    """Another program wrote it."""
    await cast("Any", claimed).hset(KEYS.counts(CHANNEL, MESSAGE), "reaction:👍", count)

    for read in (reader.page(CHANNEL, [MESSAGE]), reader.get(CHANNEL, MESSAGE)):
        with pytest.raises(TallyReadError, match="what the worker never writes"):
            await read


@pytest.mark.parametrize(
    "rest",
    [
        ":s3cr@t/w#rd@localhost",
        ":6379/rd@localhost",
        "localhost/room",
        "localhost?retry=1",
        "localhost?max_connections=0",
        "localhost?max_connections=some",
        "localhost?socket_timeout=0",
        "localhost?socket_timeout=-1",
        "localhost?socket_timeout=nan",
        "localhost?socket_timeout=inf",
        "localhost?sockettimeout=2",
    ],
)
def test_an_address_that_would_fail_later_is_refused(rest: str) -> None:
    """No part of a password is quoted: it would become the name of a host, and be logged."""
    with pytest.raises(InvalidNameError, match="The address of Redis") as raised:
        TallyReader.from_url(f"redis://{rest}")

    assert "w#rd" not in str(raised.value)


@pytest.mark.parametrize(
    ("kind", "client"),
    [
        (TallyReader, "redis://localhost"),
        (AsyncTallyReader, "redis://localhost"),
        (TallyReader, Redis()),
        (AsyncTallyReader, BlockingRedis()),
    ],
)
def test_a_client_of_another_kind_is_refused(kind: Any, client: Any) -> None:
    """At once, and not at the first read."""
    with pytest.raises(TypeError, match=r"from_url|a client like redis"):
        kind(client)
