"""Who may ask the API, and what it says to everybody else."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from reaction_tally.errors import RedisUnavailableError
from tests.api.served import Served, served
from tests.histories import CHANNEL, MESSAGE
from tests.waiting import wait_until
from worker.api.site import DESCRIPTION_PATH
from worker.web import connection

TALLIES = f"/v1/channels/{CHANNEL}/tallies"
WHO = f"/v1/channels/{CHANNEL}/messages/{MESSAGE}/who"
TOP = f"/v1/channels/{CHANNEL}/top"
TOKEN = "a-canary-of-a-token"
KNOWN = {"message": MESSAGE}


@pytest.fixture
async def guarded(claimed: Redis) -> AsyncIterator[Served]:
    """The API with a token."""
    async with served(claimed, TOKEN) as server:
        yield server


@pytest.mark.parametrize(
    ("target", "query", "status", "parameter"),
    [
        (TALLIES, {}, 400, "message"),
        (TALLIES, {"message": "x"}, 400, "message"),
        (TALLIES, {"message": ["1", "-2"]}, 400, "message"),
        (TALLIES, {"message": "1" * 21}, 400, "message"),
        (TALLIES, {"message": "١٢٣"}, 400, "message"),
        (TALLIES, {"message": [str(number) for number in range(101)]}, 400, "message"),
        (TALLIES, {"message": "1", "me": ["a", "b"]}, 400, "me"),
        (TALLIES, {"message": "1", "me": "x" * 251}, 400, "me"),
        (TALLIES, {"message": "1", "names": "51"}, 400, "names"),
        (TALLIES, {"message": "1", "names": "1.0"}, 400, "names"),
        (TALLIES, {"message": "1", "names": ""}, 400, "names"),
        (TALLIES, {"message": "1", "type": ["t"] * 21}, 400, "type"),
        (TALLIES, {"message": "1", "canary": "1"}, 400, None),
        (TALLIES, {"message": [str(number) for number in range(201)]}, 400, None),
        (WHO, {"type": "t"}, 400, "value"),
        (WHO, {"value": "v"}, 400, "type"),
        (WHO, {"type": "t", "value": "v", "limit": "0"}, 400, "limit"),
        (WHO, {"type": "t", "value": "v", "limit": "1001"}, 400, "limit"),
        (WHO, {"type": "t", "value": "v", "after": "canary"}, 400, "after"),
        (WHO.replace(MESSAGE, "1x"), {"type": "t", "value": "v"}, 400, "timetoken"),
        (TOP, {"since": "1760000000"}, 400, "since"),
        (TOP, {"limit": "99999999999999999999"}, 400, "limit"),
        (f"{TALLIES}?message=1&me=%ff", None, 400, None),
        (f"{TALLIES}?message=1&me=%ed%a0%80", None, 400, None),
        (TALLIES.replace(CHANNEL, "%ff"), KNOWN, 400, "channel"),
        (TALLIES.replace(CHANNEL, "%ed%a0%80"), KNOWN, 400, "channel"),
        (TALLIES.replace(CHANNEL, "x" * 251), KNOWN, 400, "channel"),
        ("/v1", {}, 404, None),
        ("/v1/", {}, 404, None),
        ("/v1/canary", {}, 404, None),
        ("/v1/channels//tallies", KNOWN, 404, None),
        ("/v1/channels/a/b/tallies", KNOWN, 404, None),
        (f"{TALLIES}/", KNOWN, 404, None),
        ("/v1/changes/../openapi.json", {}, 404, None),
    ],
)
async def test_a_wrong_request_is_a_problem(
    api: Served, target: str, query: dict[str, object] | None, status: int, parameter: str | None
) -> None:
    """The answer names the parameter, and quotes nothing."""
    answer = await api.get(target, query)

    assert answer.problem == (status, parameter)
    if parameter:
        assert answer.json["detail"].startswith(f"{parameter}: ")
    assert b"canary" not in answer.body
    assert answer.headers["server"] == "tally"
    assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize("method", ["HEAD", "POST", "PUT", "PATCH", "DELETE", "TRACE", "OPTIONS"])
async def test_other_methods_are_refused(api: Served, method: str) -> None:
    """The answer names the one that there is."""
    answer = await api.get(TALLIES, KNOWN, method=method)

    assert answer.status == 405
    assert answer.headers["allow"] == "GET"


@pytest.mark.parametrize(
    "authorization",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        f"Basic {TOKEN}",
        f"Bearer {TOKEN}x",
        f"Bearer {TOKEN[:-1]}",
        "Bearer ünï",
        TOKEN,
        f"Bearer {TOKEN.upper()}",
    ],
)
@pytest.mark.parametrize("target", [f"{TALLIES}?message=1", "/v1/changes", "/v1/canary"])
async def test_without_the_token_nothing_is_read(
    guarded: Served, authorization: str | None, target: str
) -> None:
    """Not even which paths there are."""
    stranger = Served(guarded.host, guarded.port)
    headers = {} if authorization is None else {"Authorization": authorization}

    answer = await stranger.get(target, headers=headers)

    assert answer.problem == (401, None)
    assert answer.headers["www-authenticate"] == 'Bearer realm="tally"'


async def test_with_the_token_any_host_may_ask(guarded: Served) -> None:
    """The name of a scheme has no case. The description needs no token."""
    host = {"Host": "tally.example.com"}
    lower = {"Authorization": f"bearer  {TOKEN}"}

    assert (await guarded.get(TALLIES, KNOWN, headers=host)).status == 200
    assert (await guarded.get(TALLIES, KNOWN, headers=lower)).status == 200
    stranger = Served(guarded.host, guarded.port)
    assert (await stranger.get(DESCRIPTION_PATH)).status == 200


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("LOCALHOST:8080", 200),
        ("127.0.0.1:8080", 200),
        ("[::1]:8080", 200),
        ("evil.example", 403),
        ("localhost.evil.example", 403),
        ("127.0.0.1.evil.example", 403),
        ("", 403),
    ],
)
async def test_without_a_token_only_this_machine_asks(api: Served, host: str, status: int) -> None:
    """A page in a browser may have a name that leads to 127.0.0.1."""
    assert (await api.get(TALLIES, KNOWN, headers={"Host": host})).status == status


async def test_pages_of_other_origins_need_leave(claimed: Redis) -> None:
    """Only those that are named may read answers, also problems and streams."""
    named = ("https://a.example", "http://localhost:3000")
    async with served(claimed, TOKEN, named) as some, served(claimed, TOKEN, ("*",)) as every:
        for origin in (*named, "https://evil.example"):
            headers = {"Origin": origin}
            answers = [
                await some.get(TALLIES, KNOWN, headers=headers),
                await some.get(TALLIES, headers=headers),
            ]
            for answer in answers:
                allowed = answer.headers.get("access-control-allow-origin")
                assert allowed == (origin if origin in named else None)
                assert answer.headers["vary"] == "Origin"
        anyone = await every.get(TALLIES, KNOWN, headers={"Origin": "https://evil.example"})
        assert anyone.headers["access-control-allow-origin"] == "*"
        assert anyone.headers["access-control-expose-headers"] == "ETag"
        events = await every.follow(CHANNEL)
        assert "Access-Control-Allow-Origin: *" in events.head
        events.leave()


async def test_a_browser_may_ask_first(claimed: Redis) -> None:
    """Before it sends a token: so this question needs none."""
    async with served(claimed, TOKEN, ("https://a.example",)) as api:
        stranger = Served(api.host, api.port)
        headers = {"Origin": "https://a.example", "Access-Control-Request-Method": "GET"}

        answer = await stranger.get(TALLIES, method="OPTIONS", headers=headers)
        other = await api.get(TALLIES, method="PUT")

    assert answer.status == 204
    assert answer.headers["access-control-allow-origin"] == "https://a.example"
    assert "Authorization" in answer.headers["access-control-allow-headers"]
    assert other.headers["allow"] == "GET, OPTIONS"


async def test_without_origins_no_page_reads(api: Served) -> None:
    """No header says that it may."""
    answer = await api.get(TALLIES, KNOWN, headers={"Origin": "https://a.example"})

    assert not [name for name in answer.headers if name.startswith("access-control")]


async def test_too_many_requests_leave_probes_alone(
    api: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is too much gets a 503 at once. Then all is as before."""
    monkeypatch.setattr(connection, "MAX_SITE_CONNECTIONS", 20)
    is_over = asyncio.Event()
    begun: list[object] = []

    async def wait(*arguments: object, **_: object) -> None:
        begun.append(arguments)
        await is_over.wait()
        raise RedisUnavailableError("It is over.")

    with monkeypatch.context() as patched:
        patched.setattr("reaction_tally.AsyncTallyReader.page", wait)
        asking = [asyncio.create_task(api.get(TALLIES, KNOWN)) for _ in range(20)]
        await wait_until(lambda: len(begun) == 20)
        refused = await asyncio.gather(*(api.get(TALLIES, KNOWN) for _ in range(20)))
        probes = await asyncio.gather(*(api.get("/readyz") for _ in range(20)))
        is_over.set()
        await asyncio.gather(*asking)

    assert {answer.problem for answer in refused} == {(503, None)}
    assert {answer.headers["retry-after"] for answer in refused} == {"1"}
    assert {answer.status for answer in probes} == {200}
    assert (await api.get(TALLIES, KNOWN)).status == 200
