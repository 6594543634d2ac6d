"""The API of a real worker: a reaction is on its way to HTTP clients within a second."""

import asyncio
import time
from dataclasses import replace
from typing import Any

from reaction_tally import Reset
from tests.api.served import Events, Served
from tests.client.copies import Copy
from tests.crowds import Crowd
from tests.processes import Child
from tests.redis_server import MortalServer
from tests.rollbacks import goes_back, is_repaired, repairs_soon
from tests.waiting import wait_until
from tests.worlds import MESSAGE, ROOM, World

TALLIES = f"/v1/channels/{ROOM}/tallies"
TOKEN = "a-canary-of-a-token"
STREAMS = 200


async def api_of(world: World, **settings: Any) -> tuple[Child, Served]:
    """Return a worker that serves the API, and its address."""
    worker = await world.follow(TALLY_API="on", **settings)
    (listens,) = worker.entries("http_listens")
    assert listens["sites"] == ["/v1"]
    return worker, Served("127.0.0.1", listens["port"], settings.get("TALLY_API_TOKEN"))


async def test_a_reaction_reaches_a_client(world: World) -> None:
    """As an event within a second, and in the tallies."""
    _, api = await api_of(world)
    events = await api.follow(ROOM)
    took: list[float] = []
    for number in range(5):
        began = time.monotonic()
        world.react(uuid=f"user-{number}")
        _, data = await events.next()
        took.append(time.monotonic() - began)
        assert data["count"] == number + 1

    page = await api.get(TALLIES, {"message": MESSAGE, "me": "user-0"})
    (message,) = page.json["messages"]
    assert message["total"] == 5
    assert message["reactions"][0]["mine"]
    assert min(took) < 1
    events.leave()


async def test_the_token_opens_the_api(world: World) -> None:
    """On every address. Neither the log nor a page shows it."""
    world.settings["TALLY_HTTP"] = "0.0.0.0:0"
    token = world.folder / "token"
    token.write_text(f"{TOKEN}\n")
    worker, stranger = await api_of(world, TALLY_API_TOKEN_FILE=str(token))

    refused = await stranger.get(TALLIES, {"message": MESSAGE})
    answered = await replace(stranger, token=TOKEN).get(TALLIES, {"message": MESSAGE})
    _, status = await worker.get("/status")
    _, metrics = await worker.get("/metrics")

    assert (refused.status, answered.status) == (401, 200)
    assert TOKEN not in worker.err + status + metrics
    assert 'tally_http_requests_total{route="/v1/channels/{channel}/tallies",status="401"} 1.0' in (
        metrics
    )


async def test_a_stop_ends_open_streams(world: World) -> None:
    """Each has a proper end, and nothing is given up."""
    worker, api = await api_of(world)
    streams = await asyncio.gather(*(api.follow(ROOM) for _ in range(50)))
    endings = [asyncio.create_task(stream.ended()) for stream in streams]

    code = await worker.stopped()

    assert code == 0, worker.tail()
    assert all(await asyncio.gather(*endings))


async def test_two_hundred_clients_follow_at_once(world: World) -> None:
    """Each gets every change, by one subscription. Probes are answered meanwhile."""
    worker, api = await api_of(world)
    streams = await asyncio.gather(*(api.follow(ROOM) for _ in range(STREAMS)))
    reading = [asyncio.create_task(until_count(stream, 20)) for stream in streams]
    for number in range(20):
        world.react(uuid=f"user-{number}")
    probes = await asyncio.gather(*(worker.get("/readyz") for _ in range(20)))
    await asyncio.gather(*reading)

    ((_, subscriptions),) = await world.redis.pubsub_numsub("tally:changed")
    _, metrics = await worker.get("/metrics")
    assert {status for status, _ in probes} <= {200, 503}
    assert subscriptions == 1
    assert f"tally_http_streams {STREAMS}.0" in metrics
    for stream in streams:
        stream.leave()
    await wait_until(lambda: has_no_stream(worker))


async def has_no_stream(worker: Child) -> bool:
    """Tell whether every stream has ended."""
    _, metrics = await worker.get("/metrics")
    return "tally_http_streams 0.0" in metrics


async def until_count(stream: Events, count: int) -> None:
    """Read until a count comes."""
    while (await stream.next())[1]["count"] != count:
        pass


async def test_three_hundred_connections_leave_probes_alone(world: World) -> None:
    """Whatever they do: some are silent, some ask without an end, some follow."""
    worker, api = await api_of(world)
    opened = [await asyncio.open_connection(api.host, api.port) for _ in range(150)]
    for number, (_, writer) in enumerate(opened):
        if number % 2:
            writer.write(b"GET /v1/channels/room/tallies?message=1 HTTP/1.1\r\nHost: localhost\r\n")
    streams = await asyncio.gather(*(api.follow(ROOM) for _ in range(150)))

    statuses = [(await worker.get("/livez"))[0] for _ in range(20)]
    asked = [(await api.get(TALLIES, {"message": MESSAGE})).status for _ in range(20)]

    assert set(statuses) == {200}
    assert set(asked) == {200}
    for _, writer in opened:
        writer.transport.abort()
    for stream in streams:
        stream.leave()


async def test_a_copy_over_http_is_the_truth(world: World) -> None:
    """Also of a client that loses its connection again and again while many users react."""
    _, api = await api_of(world)
    copy = Copy(ROOM)
    crowd = Crowd(world.state, seed=3)
    events = await api.follow(ROOM, since="0-0")
    async with crowd.acting(world.emulator, per_second=400):
        for number in range(6):
            for _ in range(5 + number):
                copy.take(await events.next_item())
            events.leave()
            await crowd.has_acted(60 * (number + 1))
            events = await api.follow(ROOM, last_id=events.last_id)
    await world.settles()

    async def is_exact() -> bool:
        copy.take(await events.next_item())
        return counts_of(copy) == world.emulator.truth()[ROOM]

    await wait_until(is_exact, what=world.logs)
    assert copy.resets == 0
    events.leave()


def counts_of(copy: Copy) -> dict[str, dict[str, dict[str, int]]]:
    """Return message → type → value → count of a copy."""
    counts: dict[str, dict[str, dict[str, int]]] = {}
    for message, tallies in copy.tallies.items():
        for field, count in tallies.items():
            type, _, value = field.partition(":")
            counts.setdefault(message, {}).setdefault(type, {})[value] = count
    return counts


async def test_an_older_copy_of_redis_is_a_reset(mortal: tuple[World, MortalServer]) -> None:
    """For a client that was there, whose stream goes on."""
    world, server = mortal
    repairs_soon(world)
    worker, api = await api_of(world)
    await world.settles()
    events = await api.follow(ROOM)
    copy = server.copy(world.folder / "copy")
    world.react("🎉", "ben")
    await events.next()

    await goes_back(world, server, copy)
    world.react("❤", "cleo")
    while not isinstance(await events.next_item(), Reset):
        pass
    await is_repaired(world, worker)

    page = await api.get(TALLIES, {"message": MESSAGE})
    (message,) = page.json["messages"]
    counts = {each["value"]: each["count"] for each in message["reactions"]}
    assert counts["🎉"] == counts["❤"] == 1
    events.leave()
