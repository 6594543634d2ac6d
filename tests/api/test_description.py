"""The OpenAPI description says what the routes do: each answer is compared with it."""

import json
import re
from typing import Any, Final

import jsonschema
import pytest
from redis.asyncio import Redis

from reaction_tally.arguments import MOST_NAMES, MOST_REACTORS
from tests.api.served import Response, Served, served
from tests.histories import BEN, CHANNEL, MESSAGE, added, removed
from tests.store.examples import apply
from worker.api import parameters, reads
from worker.api.changes import MAX_ID, MOST_CHANNELS
from worker.api.site import description, opened_api
from worker.store.store import Store
from worker.web.access import Access
from worker.web.streams import Streams

DOCUMENT: Final[dict[str, Any]] = json.loads(description())
TALLIES: Final = "/v1/channels/{channel}/tallies"
WHO: Final = "/v1/channels/{channel}/messages/{timetoken}/who"
TOP: Final = "/v1/channels/{channel}/top"
CHANGES: Final = "/v1/changes"
ASKED: Final = [
    (TALLIES, {"message": [MESSAGE, "1"]}, 200),
    (TALLIES, {"message": MESSAGE, "me": "ana", "names": 5, "type": ["reaction"]}, 200),
    (TALLIES, {"message": MESSAGE, "me": "nobody"}, 200),
    (TALLIES, {}, 400),
    (WHO, {"type": "reaction", "value": "👍"}, 200),
    (WHO, {"type": "reaction", "value": "👍", "limit": 1}, 200),
    (WHO, {"type": "reaction", "value": "none"}, 200),
    (WHO, {"type": "reaction"}, 400),
    (TOP, {}, 200),
    (TOP, {"type": "reaction", "value": "👍", "since": "17600000000000000", "limit": 3}, 200),
    (TOP, {"limit": "x"}, 400),
    (CHANGES, {"channel": "a.*"}, 400),
    ("/v1/openapi.json", {}, 200),
]


def operation(path: str) -> dict[str, Any]:
    """Return the operation of a path."""
    found: dict[str, Any] = DOCUMENT["paths"][path]["get"]
    return found


def check(path: str, answer: Response) -> None:
    """Compare an answer with its description."""
    described = resolved(operation(path)["responses"][str(answer.status)])
    for name in described.get("headers", {}):
        assert name.lower() in answer.headers, name
    contents = described.get("content", {})
    if not contents:
        assert not answer.body
        return
    kind = answer.headers["content-type"].split(";")[0]
    validate(contents[kind]["schema"], answer.json)


def resolved(node: dict[str, Any]) -> dict[str, Any]:
    """Return what a node is, or refers to."""
    if "$ref" not in node:
        return node
    target: Any = DOCUMENT
    for part in node["$ref"].removeprefix("#/").split("/"):
        target = target[part]
    return resolved(target)


def validate(schema: dict[str, Any], value: Any) -> None:
    """Check a value against a schema of the description."""
    whole = {**schema, "components": DOCUMENT["components"]}
    jsonschema.Draft202012Validator(whole).validate(value)


def target(path: str) -> str:
    """Return a path with its parameters."""
    return path.format(channel=CHANNEL, timetoken=MESSAGE)


@pytest.mark.parametrize(("path", "query", "status"), ASKED)
async def test_every_answer_is_as_described(
    api: Served, store: Store, path: str, query: dict[str, Any], status: int
) -> None:
    """Its headers, its media type, and each member."""
    await apply(store, [added(1), added(2, BEN)])

    answer = await api.get(target(path), query)

    assert answer.status == status
    check(path, answer)


@pytest.mark.parametrize("path", [TALLIES, WHO, TOP])
async def test_problems_of_every_route_are_as_described(
    api: Served, claimed: Redis, path: str
) -> None:
    """401, 403, 405 and 503."""
    query = {"message": "1"} if path == TALLIES else {"type": "t", "value": "v"}
    other = await api.get(target(path), query, headers={"Host": "evil.example"})
    posted = await api.get(target(path), query, method="POST")
    await claimed.delete("tally:meta")
    away = await api.get(target(path), query)
    async with served(claimed, "a-canary-of-a-token") as guarded:
        stranger = Served(guarded.host, guarded.port)
        refused = await stranger.get(target(path), query)

    answers = [other, posted, away, refused]
    assert [answer.status for answer in answers] == [403, 405, 503, 401]
    for answer in answers:
        check(path, answer)


async def test_a_known_page_is_as_described(api: Served, store: Store) -> None:
    """304, with its headers and nothing else."""
    first = await api.get(target(TALLIES), {"message": MESSAGE})
    headers = {"If-None-Match": first.headers["etag"]}

    answer = await api.get(target(TALLIES), {"message": MESSAGE}, headers=headers)

    assert answer.status == 304
    check(TALLIES, answer)


async def test_events_are_as_described(api: Served, store: Store) -> None:
    """Changes, ends of messages, and resets of one channel and of all."""
    events, everything = await api.follow(CHANNEL), await api.follow(last_id="x")
    late = await api.follow(CHANNEL, last_id="x")
    await apply(store, [added(1)])
    await apply(store, [removed(1)])
    await apply(store, [added(5)])
    found = [await everything.next(), await late.next()]
    while "change" not in {name for name, _ in found}:
        found.append(await events.next())
    await store.clear(CHANNEL)
    while found[-1][1]["type"] is not None:
        found.append(await events.next())

    for name, data in found:
        validate({"$ref": f"#/components/schemas/{name.capitalize()}"}, data)
    for client in (events, everything, late):
        client.leave()


async def test_the_paths_are_the_routes(claimed: Redis) -> None:
    """And the other way round."""
    async with opened_api(claimed, "tally", Streams(), Access(None)) as site:
        assert set(site.paths) == set(DOCUMENT["paths"])


def test_every_schema_is_one() -> None:
    """And every reference leads somewhere."""
    for schema in DOCUMENT["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)
    for reference in re.findall(r'"\$ref": "([^"]+)"', description().decode()):
        assert resolved({"$ref": reference})


def parameter(path: str, name: str) -> dict[str, Any]:
    """Return the schema of a parameter."""
    (found,) = [each for each in operation(path)["parameters"] if each["name"] == name]
    schema: dict[str, Any] = found["schema"]
    return schema


def test_bounds_are_those_of_the_program() -> None:
    """Each number of the description."""
    assert parameter(TALLIES, "message")["maxItems"] == reads.MOST_MESSAGES
    assert parameter(TALLIES, "type")["maxItems"] == reads.MOST_TYPES
    assert parameter(TALLIES, "names")["maximum"] == MOST_NAMES
    assert parameter(TALLIES, "me")["maxLength"] == parameters.MAX_TEXT
    assert parameter(WHO, "limit")["maximum"] == MOST_REACTORS
    assert parameter(WHO, "after")["maxLength"] == parameters.MAX_AFTER
    assert parameter(TOP, "limit")["maximum"] == reads.MOST_TOP
    assert parameter(CHANGES, "channel")["maxItems"] == MOST_CHANNELS
    assert parameter(CHANGES, "since")["maxLength"] == MAX_ID
