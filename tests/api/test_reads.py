"""The routes that read once answer what the client's reader answers."""

import asyncio
from typing import Any, cast
from urllib.parse import quote

import pytest
from redis.asyncio import Redis

from reaction_tally import AsyncTallyReader
from reaction_tally.keys import Keys
from tests.api.served import Served, served
from tests.client.followers import reaction
from tests.histories import BEN, CHANNEL, MESSAGE, added
from tests.redis_server import RedisServer
from tests.store.examples import apply
from tests.waiting import wait_until
from worker.domain.action import Added, Identity
from worker.store.connection import connect
from worker.store.cursors import Cursors
from worker.store.heartbeat import IN_USE_SECONDS
from worker.store.store import Store

TALLIES = f"/v1/channels/{CHANNEL}/tallies"
WHO = f"/v1/channels/{CHANNEL}/messages/{MESSAGE}/who"
TOP = f"/v1/channels/{CHANNEL}/top"


def chosen(place: int, user: str = "ana", message: str = MESSAGE) -> Added:
    """Return a thumb up."""
    return added(place, Identity(CHANNEL, message, "reaction", "👍", user))


async def test_tallies_are_those_of_a_page(api: Served, claimed: Redis, store: Store) -> None:
    """With totals, the position to follow from, and every message that was asked for."""
    await apply(store, [added(1), added(2, BEN), reaction(3, "a:b %")])

    answer = await api.get(TALLIES, {"message": [MESSAGE, "1"]})

    page = await AsyncTallyReader(claimed).page(CHANNEL, [MESSAGE])
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.json == {
        "channel": CHANNEL,
        "position": page.position,
        "in_doubt": False,
        "heartbeat_age_seconds": None,
        "messages": [
            {
                "timetoken": MESSAGE,
                "total": 3,
                "reactions": [
                    {"type": "reaction", "value": "👍", "count": 2},
                    {"type": "reaction", "value": "a:b %", "count": 1},
                ],
            },
            {"timetoken": "1", "total": 0, "reactions": []},
        ],
    }


async def test_tallies_say_what_is_mine_and_who_reacted(api: Served, store: Store) -> None:
    """Only if it is asked. Types that are not asked for are left out."""
    await apply(store, [added(1), added(2, BEN)])

    mine = await api.get(TALLIES, {"message": MESSAGE, "me": "ben", "names": 1})
    none = await api.get(TALLIES, {"message": MESSAGE, "type": ["other", "receipt"]})

    (message,) = mine.json["messages"]
    (found,) = message["reactions"]
    assert found["mine"]
    assert found["mine_at"] == found["last_at"]
    assert found["names"] == ["ana"]
    assert found["more"]
    assert none.json["messages"] == [{"timetoken": MESSAGE, "total": 0, "reactions": []}]


async def test_a_page_that_is_known_is_not_sent_again(api: Served, store: Store) -> None:
    """304 while the content is the same, for this question. What is about a user is private."""
    await apply(store, [added(1)])
    query = {"message": MESSAGE}
    first = await api.get(TALLIES, query)
    tag = first.headers["etag"]
    others = ['"x", ' + tag, tag.removeprefix("W/"), "*"]

    again = [await api.get(TALLIES, query, headers={"If-None-Match": each}) for each in others]
    mine = await api.get(TALLIES, query | {"me": "ana"}, headers={"If-None-Match": tag})
    await apply(store, [chosen(9, message="17600000009999999")])
    elsewhere = await api.get(TALLIES, query, headers={"If-None-Match": tag})
    await apply(store, [added(2, BEN)])
    changed = await api.get(TALLIES, query, headers={"If-None-Match": tag})

    assert [answer.status for answer in again] == [304, 304, 304]
    assert {answer.body for answer in again} == {b""}
    assert again[0].headers["etag"] == tag
    assert first.headers["cache-control"] == "no-cache"
    assert mine.status == 200
    assert mine.headers["cache-control"] == "private, no-cache"
    assert elsewhere.status == 304
    assert changed.status == 200
    assert changed.headers["etag"] != tag


async def test_doubt_is_another_page(api: Served, claimed: Redis, store: Store) -> None:
    """A client that has the page learns of it."""
    await apply(store, [added(1)])
    first = await api.get(TALLIES, {"message": MESSAGE})
    await claimed.hset(f"tally:{{{CHANNEL}}}:owed", "overflow", "1")

    headers = {"If-None-Match": first.headers["etag"]}
    second = await api.get(TALLIES, {"message": MESSAGE}, headers=headers)

    assert second.status == 200
    assert second.json["in_doubt"]


async def test_tallies_say_how_long_ago_a_worker_lived(
    api: Served, claimed: Redis, store: Store
) -> None:
    """A page that is known stays known meanwhile."""
    await apply(store, [added(1)])
    first = await api.get(TALLIES, {"message": MESSAGE})
    await Cursors(claimed, Keys()).register("a", [CHANNEL])
    second = await api.get(TALLIES, {"message": MESSAGE})
    await Cursors(claimed, Keys()).end_heartbeats()
    third = await api.get(TALLIES, {"message": MESSAGE})

    assert 0 <= second.json["heartbeat_age_seconds"] < IN_USE_SECONDS
    assert third.json["heartbeat_age_seconds"] >= IN_USE_SECONDS
    assert len({answer.headers["etag"] for answer in (first, second, third)}) == 1


async def test_a_page_comes_without_an_age_that_cannot_be_read(
    valkey: RedisServer, claimed: Redis, store: Store
) -> None:
    """Null means that no worker gave a sign of life. A missing age means nothing."""
    await apply(store, [added(1)])
    rights = ("on", "nopass", "~*", "&*", "+@all", "-pttl")
    await cast("Any", claimed).execute_command("ACL", "SETUSER", "ageless", "reset", *rights)
    url = valkey.url.replace("redis://", "redis://ageless:any@")
    async with connect(url) as redis, served(redis) as api:
        answer = await api.get(TALLIES, {"message": MESSAGE})
    await cast("Any", claimed).execute_command("ACL", "DELUSER", "ageless")

    assert answer.status == 200
    assert answer.json["messages"][0]["total"] == 1
    assert "heartbeat_age_seconds" not in answer.json


async def test_users_come_page_by_page(api: Served, store: Store) -> None:
    """Oldest first, until ``after`` is null."""
    users = [f"u{number} 👤" for number in range(5)]
    await apply(store, [chosen(number, user) for number, user in enumerate(users)])
    query: dict[str, Any] = {"type": "reaction", "value": "👍", "limit": 2}

    found: list[str] = []
    pages = 0
    while query.get("after", "") is not None:
        page = (await api.get(WHO, query)).json
        found += [reactor["user"] for reactor in page["reactors"]]
        query["after"] = page["after"]
        pages += 1

    assert found == users
    assert pages == 3
    assert page["total"] == 5


async def test_the_top_messages_come_first(api: Served, store: Store) -> None:
    """Of a type and a value, since a message."""
    second = str(int(MESSAGE) + 1)
    events = [added(1), added(2, BEN), reaction(3, "🎉")]
    now = "17600000012345678"  # a message is older than its reactions
    events.append(Added(Identity(CHANNEL, second, "reaction", "👍", "ana"), now, now))
    await apply(store, events)

    everything = await api.get(TOP)
    newer = await api.get(TOP, {"since": second, "value": "👍", "type": "reaction"})

    assert everything.json["messages"] == [
        {"timetoken": MESSAGE, "count": 3},
        {"timetoken": second, "count": 1},
    ]
    assert newer.json["messages"] == [{"timetoken": second, "count": 1}]


@pytest.mark.parametrize(
    "channel",
    ["a/b", "../x", "a%2Fb", "a b", "{x}", "ünï👍", "a\x00b", "a\nb", "?#&", "." * 250, ".."],
)
async def test_any_channel_can_be_asked_for(api: Served, store: Store, channel: str) -> None:
    """It is one segment of the path, percent-encoded."""
    await apply(store, [added(1)], channel=channel)

    answer = await api.get(f"/v1/channels/{quote(channel, safe='')}/tallies", {"message": MESSAGE})

    assert answer.json["channel"] == channel
    assert answer.json["messages"][0]["total"] == 1
    assert answer.body.isascii()


async def test_a_redis_that_is_away_is_a_503(api: Served, claimed: Redis) -> None:
    """The reason is in the log, and not in the answer: it names the server."""
    await claimed.delete("tally:meta")
    none = await api.get(TALLIES, {"message": MESSAGE})
    await claimed.hset("tally:meta", "schema", "1")

    async def is_back() -> bool:
        return (await api.get(TALLIES, {"message": MESSAGE})).status == 200

    assert none.problem == (503, None)
    assert none.headers["retry-after"] == "2"
    assert b"127.0.0.1" not in none.body
    await wait_until(is_back)


async def test_another_schema_is_a_503(api: Served, claimed: Redis) -> None:
    """The answer says where the reason is: clients can do nothing about it."""
    await claimed.hset("tally:meta", "schema", "2")

    refused = await api.get(TALLIES, {"message": MESSAGE})

    assert refused.problem == (503, None)
    assert b"The worker's log says why, and what to do." in refused.body


async def test_requests_have_connections_of_their_own(api: Served, claimed: Redis) -> None:
    """Fifty requests at once take eight, and each is answered."""
    before = await claimed.info("clients")
    answers = await asyncio.gather(*(api.get(TALLIES, {"message": MESSAGE}) for _ in range(50)))

    after = await claimed.info("clients")
    assert {answer.status for answer in answers} == {200}
    assert after["connected_clients"] - before["connected_clients"] <= 8
