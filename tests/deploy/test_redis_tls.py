"""TLS to Redis, as the runbook has it: an authority of one's own, and certificates of clients.

The embedded Valkey is built without TLS, so a forwarder on loopback ends it.
"""

import asyncio
import re
import ssl
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

import pytest
import trustme

from reaction_tally import (
    AsyncTallyReader,
    RedisUnavailableError,
    Reset,
    TallyReader,
)
from tests.client.in_thread import InThread
from tests.redis_server import Forwarder, RedisServer
from tests.waiting import wait_until
from tests.worlds import MESSAGE, ROOM, World, open_world
from worker.errors import ExitCode
from worker.store.connection import SOCKET_TIMEOUT_SECONDS

RUNBOOK: Final = Path(__file__).parents[2] / "deploy" / "runbook.md"
SETTINGS: Final = {"TALLY_SETTLE_SECONDS": "0.3", "TALLY_LOG_FORMAT": "json"}


@dataclass(frozen=True)
class Papers:
    """An authority, a certificate of the client from it, and the address that names both."""

    authority: trustme.CA
    folder: Path
    forwarder: Forwarder

    def write(self) -> None:
        """Write the three files."""
        client = self.authority.issue_cert("worker@tally.invalid")
        self.authority.cert_pem.write_to_path(self.folder / "ca.pem")
        client.cert_chain_pems[0].write_to_path(self.folder / "client.pem")
        client.private_key_pem.write_to_path(self.folder / "client.key")

    def address(self) -> str:
        """Return the runbook's address, with this server and these files in it."""
        (address,) = re.findall(r"REDIS_URL=(rediss://\S+)", RUNBOOK.read_text("utf-8"))
        server = self.forwarder.url.removeprefix("rediss://")
        address = str(address).replace("tally:PASSWORD@HOST:6380", server)
        return address.replace("/etc/tally", str(self.folder))


def server_side(authority: trustme.CA, name: str = "127.0.0.1") -> ssl.SSLContext:
    """Return how a Redis with ``tls-auth-clients yes`` and this name speaks TLS."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(name).configure_cert(context)
    authority.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED
    return context


@pytest.fixture
async def papers(valkey: RedisServer, real_redis: object, tmp_path: Path) -> AsyncIterator[Papers]:
    """A Redis with TLS, and the files of a client."""
    authority = trustme.CA()
    async with Forwarder(valkey.port, server_side(authority)) as forwarder:
        papers = Papers(authority, tmp_path, forwarder)
        papers.write()
        yield papers


@pytest.fixture
async def world(valkey: RedisServer, papers: Papers, tmp_path: Path) -> AsyncIterator[World]:
    """A world whose commands speak TLS to Redis."""
    async with open_world(valkey.url, tmp_path) as world:
        world.settings |= {"REDIS_URL": papers.address(), **SETTINGS}
        yield world


async def test_a_worker_and_its_commands_speak_tls(world: World) -> None:
    """With the address of the runbook."""
    async with world.run_worker() as worker:
        world.react("👍", "ana")
        await world.settles()
        await wait_until(world.owes_nothing, what=lambda: worker.err)
    for command in (("doctor",), ("backfill",), ("verify",), ("show", ROOM, MESSAGE)):
        ended = await world.run_command(*command)
        assert ended.code == ExitCode.DONE, ended


@pytest.mark.parametrize("kind", [TallyReader, AsyncTallyReader])
async def test_a_reader_speaks_tls(
    world: World, papers: Papers, kind: type[TallyReader] | type[AsyncTallyReader]
) -> None:
    """Its reads, and the changes that it follows."""
    made = kind.from_url(papers.address())
    reader = InThread(made) if isinstance(made, TallyReader) else made
    async with world.run_worker():
        world.react("👍", "ana")
        await world.settles()
        page = await reader.page(ROOM, [MESSAGE])
        assert page.messages[MESSAGE].counts == {"reaction": {"👍": 1}}
        async with aclosing(reader.changes([ROOM], since={ROOM: page.position})) as changes:
            world.react("🎉", "ben")
            change = await anext(changes)
            assert not isinstance(change, Reset)
            assert change.value == "🎉"
    await reader.close()


@pytest.mark.parametrize("wrong", ["no certificate", "another authority", "a stranger"])
async def test_without_the_right_papers_nothing_is_read(
    world: World, papers: Papers, wrong: str
) -> None:
    """The command ends with the code for Redis. A reader says that Redis does not answer."""
    address = papers.address()
    if wrong == "no certificate":
        address = re.sub(r"&ssl_(certfile|keyfile)=[^&]*", "", address)
    if wrong == "another authority":
        trustme.CA().cert_pem.write_to_path(papers.folder / "ca.pem")
    if wrong == "a stranger":
        Papers(trustme.CA(), papers.folder, papers.forwarder).write()
        papers.authority.cert_pem.write_to_path(papers.folder / "ca.pem")

    # As a process: a transport of asyncio whose handshake fails may outlive its loop.
    doctor = await world.do("doctor", REDIS_URL=address)

    assert doctor.process.returncode == ExitCode.REDIS_UNFIT, doctor.out
    assert re.search(r"^BAD +Redis", doctor.out, re.MULTILINE), doctor.out
    with TallyReader.from_url(address) as reader, pytest.raises(RedisUnavailableError):
        await asyncio.to_thread(reader.channels)


async def test_a_server_with_another_name_is_refused(
    world: World, papers: Papers, valkey: RedisServer
) -> None:
    """Its certificate is from the right authority, for somebody else."""
    tls = server_side(papers.authority, "redis.invalid")
    async with Forwarder(valkey.port, tls) as other:
        address = Papers(papers.authority, papers.folder, other).address()
        doctor = await world.do("doctor", REDIS_URL=address)
    assert doctor.process.returncode == ExitCode.REDIS_UNFIT, doctor.out


async def test_a_stop_does_not_wait_for_the_end_of_tls(world: World, papers: Papers) -> None:
    """Redis hangs, or a firewall swallows all: nobody ends TLS. Ten seconds a client are too long.

    What was read could not be applied, so the exit code is 1.
    """
    async with Forwarder(int(papers.forwarder.url.rpartition(":")[2])) as between:
        port = between.url.rpartition(":")[2]
        address = papers.address().replace(papers.forwarder.url.rpartition(":")[2], port)
        worker = await world.follow(REDIS_URL=address, TALLY_DRAIN_SECONDS="0.5")
        world.react("👍", "ana")
        await world.settles()
        between.hold_requests()
        polls = world.emulator.requests["subscribe"]
        for number, user in enumerate(["ben", "cem"], 1):  # one of them is read at least
            world.react("🎉", user)
            await world.has_polled(polls + number)
        code = await worker.stopped()

    assert code == ExitCode.FAILED, worker.err
    (drained,), (ended,) = worker.entries("drain_timed_out"), worker.entries("worker_stops")
    waited = datetime.fromisoformat(ended["timestamp"]) - datetime.fromisoformat(
        drained["timestamp"]
    )
    assert waited.total_seconds() < SOCKET_TIMEOUT_SECONDS, worker.err
