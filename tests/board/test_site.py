"""The board over HTTP, without a browser."""

import json
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientResponse, ClientSession, ClientTimeout

from tests.board.serving import Serve
from tests.redis_server import MortalServer, RedisServer
from tests.waiting import wait_until
from tests.worlds import MESSAGE, ROOM, World, open_world
from worker.board.files import FOLDER, POLICY
from worker.board.rooms import FOUND
from worker.errors import ExitCode

pytestmark = pytest.mark.processes
SECONDS = ClientTimeout(total=30)
ACL = Path(__file__).parents[2] / "deploy/redis-users.acl"
UPLOT = "19c8d4c6ad88929a79f4ae49d6f7161566dfd0ba3d15cc495e974f787eb78f1f"
"""SHA-256 of the file, as the package uplot has it."""


async def got(url: str, headers: Mapping[str, str] | None = None) -> tuple[ClientResponse, str]:
    """Return a response, and its text."""
    async with (
        ClientSession(timeout=SECONDS) as session,
        session.get(url, headers=headers) as response,
    ):
        return response, await response.text()


async def read(url: str) -> Any:
    """Return the JSON of a page."""
    response, text = await got(url)
    assert response.status == 200, text
    return json.loads(text)


async def test_every_file_comes_with_a_strict_policy(serve: Serve, address: str) -> None:
    """No inline script, no other origin, no cookie, no frame."""
    await serve()
    names = ["", *(f"/{path.name}" for path in FOLDER.glob("*.js")), "/board.css", "/icon.svg"]
    for name in names:
        response, text = await got(f"{address}{name}")
        assert (response.status, response.headers["Content-Security-Policy"]) == (200, POLICY)
        assert "Set-Cookie" not in response.headers
        assert text
    index = (FOLDER / "index.html").read_text()
    assert "<script>" not in index
    assert "style=" not in index
    assert "http" not in index


def test_the_library_is_as_its_makers_ship_it() -> None:
    """Version 1.6.32, with its licence beside it."""
    text = (FOLDER / "uPlot.iife.min.js").read_bytes()
    assert b"uPlot (v1.6.32)" in text[:80]
    assert sha256(text).hexdigest() == UPLOT
    assert "MIT License" in (FOLDER / "uPlot.LICENSE").read_text()


async def test_it_is_off_unless_it_is_set(serve: Serve, address: str) -> None:
    """A worker that was not asked for a board has none."""
    await serve(TALLY_BOARD=None)
    response, _ = await got(address)
    assert response.status == 404


async def test_nothing_is_written(serve: Serve, address: str) -> None:
    """GET only."""
    await serve()
    async with (
        ClientSession(timeout=SECONDS) as session,
        session.post(f"{address}/snapshot") as response,
    ):
        assert response.status == 405


async def test_a_page_of_another_name_reads_nothing(serve: Serve, address: str) -> None:
    """A name that leads to 127.0.0.1 opens no way around the browser's rules."""
    await serve()
    response, _ = await got(f"{address}/snapshot", {"Host": "evil.example"})
    assert response.status == 403


async def test_a_snapshot_has_counts_and_who_changed_them(
    world: World, serve: Serve, address: str
) -> None:
    """Counts that were there before anybody looked, too."""
    await serve()
    world.react("👍", "ana")
    await world.wait_for_counts({"👍": 1})
    found = await read(f"{address}/snapshot")
    assert found["summary"]["channels"] == 1

    async def is_shown() -> bool:
        rows = (await read(f"{address}/snapshot"))["rows"]
        return [row["reactions"] for row in rows.values()] == [[["reaction", "👍", 1]]]

    await wait_until(is_shown)
    explained = await read(f"{address}/explain?channel={ROOM}&message={MESSAGE}")
    assert explained["tallies"][0]["users"] == ["ana"]
    (change,) = explained["changes"]
    assert (change["user"], change["origin"], change["count"]) == ("ana", "live", 1)
    assert explained["is_whole"]
    room = await read(f"{address}/messages?channel={ROOM}")
    assert room["order"] == [f"{MESSAGE} {ROOM}"]


async def test_a_search_never_lists_everything(world: World, serve: Serve, address: str) -> None:
    """It says how many there are, and shows a bounded number."""
    await serve()
    names = [f"room-{number}" for number in range(3 * FOUND)]
    await world.redis.sadd("tally:channels", *names)
    found = await read(f"{address}/channels?search=ROOM-")
    assert (found["matching"], len(found["channels"])) == (3 * FOUND, FOUND)
    assert found["all"] == 3 * FOUND + 1


@pytest.mark.parametrize(
    "query",
    ["channels", "channels?search=a&search=b", "messages?channel=" + "x" * 201],
)
async def test_a_wrong_question_gets_a_sentence(serve: Serve, address: str, query: str) -> None:
    """Status 400, and the name of the parameter."""
    await serve()
    response, text = await got(f"{address}/{query}")
    assert response.status == 400
    assert json.loads(text)["parameter"] in {"search", "channel"}


async def test_a_malformed_name_gets_a_sentence(serve: Serve, address: str) -> None:
    """A message that is no timetoken."""
    await serve()
    response, text = await got(f"{address}/explain?channel=room&message=x%20y")
    assert response.status == 400, text


async def test_redis_that_is_away_gets_a_sentence(tmp_path: Path) -> None:
    """And the board stays, until Redis is there again."""
    server = MortalServer(tmp_path / "redis")
    try:
        async with open_world(server.url, tmp_path) as world:
            address = await board_of(world)

            async def has_reason(words: str) -> bool:
                return words in (await read(f"{address}/snapshot"))["summary"]["reason"]

            await wait_until(lambda: has_reason("No worker runs, or ran in the last day."))
            await server.kill()
            response, text = await got(f"{address}/messages?channel={ROOM}")
            assert response.status == 503, text
            # What was read before may be wrong by now.
            await wait_until(lambda: has_reason("Redis does not answer"))
            await server.revive()

            async def is_back() -> bool:
                response, _ = await got(f"{address}/messages?channel={ROOM}")
                return response.status == 200

            await wait_until(is_back)
    finally:
        server.destroy()


async def board_of(world: World) -> str:
    """Return the address of ``tally board``, which runs from now on."""
    await world.redis.hset("tally:meta", "schema", "1")
    board = world.start("board", "--port", "0")
    await wait_until(lambda: "\n" in board.out, what=board.tail)
    return board.out.strip()


@pytest.mark.parametrize(
    ("user", "quarantine"),
    [("tally-operator", {"count": 0}), ("tally-reader", None)],
)
async def test_who_may_not_write_may_show_the_board(
    world: World, valkey: RedisServer, user: str, quarantine: object
) -> None:
    """A reader needs TIME, and a quarantine that it may not read is not called empty."""
    rules = rules_of(user)
    await world.redis.execute_command("ACL", "SETUSER", "looker", *rules, "on", "nopass", "+time")
    try:
        await world.redis.sadd("tally:channels", ROOM)
        world.settings["REDIS_URL"] = valkey.url.replace("://", "://looker:x@")
        address = await board_of(world)
        found = await read(f"{address}/snapshot")
        assert found["summary"]["channels"] == 1
        assert found["work"]["quarantine"] == quarantine
        assert (await read(f"{address}/explain?channel={ROOM}&message={MESSAGE}"))["changes"] == []
        assert (await read(f"{address}/channels?search="))["all"] == 1
        world.end()
    finally:
        await world.redis.execute_command("ACL", "DELUSER", "looker")


def rules_of(user: str) -> list[str]:
    """Return what ``deploy/redis-users.acl`` permits to a user."""
    lines = ACL.read_text().splitlines()
    (line,) = [line for line in lines if line.startswith(f"user {user} ")]
    return line.split()[3:]


async def test_the_command_shows_redis_without_a_worker(world: World) -> None:
    """It says that the plots are not available. With a worker at TALLY_HTTP they are."""
    async with world.run_worker(TALLY_BOARD=None):
        world.react("👍", "ana")
        await world.wait_for_counts({"👍": 1})
        address = await board_of(world)

        async def has_worker() -> bool:
            found = await read(f"{address}/snapshot")
            return bool(found["summary"]["has_worker"] and found["work"]["subscriptions"])

        await wait_until(has_worker)

    async def is_without() -> bool:
        found = await read(f"{address}/snapshot")
        return not found["summary"]["has_worker"] and found["summary"]["channels"] == 1

    await wait_until(is_without)


TOKEN = "a-token-of-some-length"


async def test_with_a_token_only_the_files_are_open(serve: Serve, address: str) -> None:
    """They hold nothing. Whatever is read from Redis needs the token in a header."""
    await serve(TALLY_API_TOKEN=TOKEN)
    assert (await got(address))[0].status == 200
    for page in ("snapshot", "stream", "channels?search=", "explain?channel=room&message=1"):
        response, text = await got(f"{address}/{page}")
        assert response.status == 401, text
    response, _ = await got(f"{address}/snapshot", {"Authorization": f"Bearer {TOKEN}"})
    assert response.status == 200


async def test_other_machines_need_a_token(world: World) -> None:
    """A worker that other machines may reach does not start with an open board."""
    ended = await world.run_command("run", TALLY_HTTP="0.0.0.0:0")
    assert ended.code == ExitCode.USAGE
    assert "TALLY_BOARD is on" in ended.err
