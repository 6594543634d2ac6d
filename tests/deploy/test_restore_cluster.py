"""The runbook's ways back to the copies of a cluster, on real nodes, with a real worker."""

import asyncio
import re
import shlex
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from tests.bench.in_process import Running
from tests.comparison import compare
from tests.crowds import Crowd
from tests.deploy.dockerfile import ROOT
from tests.deploy.needed import needs, run
from tests.redis_cluster import RedisCluster
from tests.redis_server import free_port, server_program
from tests.rollbacks import is_repaired, loses, notices
from tests.server_nodes import Node, wait_for
from tests.worlds import KEYS, NO_ROUNDS, World, open_world
from worker.errors import ExitCode
from worker.store.connection import connect

ROOMS: Final = tuple(f"room-{number}" for number in range(9))
ACTS: Final = 40
"""So many users act after each copy: PubNub's cache has room for more, so nothing overflows."""
LOADED_ONCE: Final = ("--appendonly", "no", "--dbfilename", "dump.rdb")
RUNBOOK: Final = (ROOT / "deploy/runbook.md").read_text(encoding="utf-8")
SECTION: Final = RUNBOOK.partition("\n## Restoring a cluster\n")[2].partition("\n## ")[0]

Copies = Mapping[Node, Path]
"""A primary → the copy of its data."""

pytestmark = [
    pytest.mark.processes,
    needs("redis-cli", "that the runbook leads a cluster back to its copies"),
]


@pytest.fixture
def cluster() -> Iterator[RedisCluster]:
    """Three primaries with a replica each, of this test alone."""
    with RedisCluster() as cluster:
        yield cluster


@pytest.fixture
async def world(
    cluster: RedisCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[World]:
    """A world of nine rooms; no list is read but for repairs, and no wait for Redis is long."""
    monkeypatch.setattr("worker.store.redis_retry.LONGEST_WAIT_SECONDS", 0.1)
    async with open_world(cluster.url, tmp_path) as world:
        world.settings |= {
            "TALLY_CHANNELS": ",".join(ROOMS),
            "TALLY_SETTLE_SECONDS": "0.5",
            **NO_ROUNDS,
        }
        yield world


@pytest.fixture
def crowd(world: World) -> Crowd:
    """Users in all rooms."""
    return Crowd(world.state, seed=58, channels=ROOMS)


def type_in(words: list[str]) -> None:
    """Run a command that must succeed."""
    done = run(*words)
    assert done.returncode == 0, done.stdout + done.stderr


def back_up(cluster: RedisCluster, folder: Path) -> Copies:
    """Copy every primary, as the runbook says."""
    folder.mkdir()
    place = {"HOST:PORT": cluster.nodes[0].address, "FOLDER": str(folder)}
    (line,) = re.findall(r"`(redis-cli --cluster backup HOST:PORT FOLDER)`", RUNBOOK)
    type_in([place.get(word, word) for word in line.split()])
    return {node: next(folder.glob(f"*{cluster.name(node)}.rdb")) for node in cluster.primaries()}


async def back_up_one_by_one(
    world: World, cluster: RedisCluster, crowd: Crowd, folder: Path
) -> Copies:
    """Copy each primary at another moment. The cursor has passed what the earlier copies lack."""
    (cursor,) = await world.cursors()
    nodes = sorted(cluster.primaries(), key=lambda node: node is cluster.primary_of(cursor))
    copies = {}
    for number, node in enumerate(nodes):
        now = await asyncio.to_thread(back_up, cluster, folder / f"backup-{number}")
        copies[node] = now[node]
        await loses(world, crowd, ACTS)
    return copies


def restore(cluster: RedisCluster, copies: Copies) -> None:
    """Put these primaries back to their copies, as the runbook says."""
    replicas = [replica for node in copies for replica in cluster.replicas_of(node)]
    for node in [*replicas, *copies]:
        node.end()
    for node, copy in copies.items():
        _load(node, copy)
    cluster.wait_until_ok()
    for replica in replicas:
        replica.start()
    cluster.wait_until_healthy()


def _load(node: Node, copy: Path) -> None:
    """Start a node with a copy alone; let it write an append-only file; start it as usual."""
    shutil.move(node.folder / "appendonlydir", node.folder / "damaged")
    shutil.copy(copy, node.folder / "dump.rdb")
    node.start(*LOADED_ONCE)
    assert node.ask("DBSIZE") > 0
    node.ask("CONFIG", "SET", "appendonly", "yes")
    wait_for(lambda: not node.info()["aof_rewrite_in_progress"], "the file is not written")
    node.end()
    node.start()


def send(copy: Path, cluster: RedisCluster) -> None:
    """Send the keys of a copy to a cluster, by the runbook's lines."""
    port, address = str(free_port()), cluster.nodes[0].address
    places = {"FOLDER": str(copy.parent), "COPY": copy.name, "HOST:PORT": address}
    lines = re.findall(r"^ {8}(redis-\S+ .*)$", SECTION, re.MULTILINE)
    server, *typed = (
        [places.get(word, word.replace("6400", port)) for word in shlex.split(line)]
        for line in lines
    )
    with _running([str(server_program()), *server[1:]], copy.with_suffix(".log")):
        wait_for(lambda: run("redis-cli", "-p", port, "DBSIZE").stdout.strip() > "0", "no copy")
        for words in typed:
            type_in(words)


@contextmanager
def _running(command: list[str], log: Path) -> Iterator[None]:
    with log.open("wb") as out, subprocess.Popen(command, stdout=out, stderr=out) as server:
        try:
            yield
        finally:
            server.kill()


async def is_right(world: World, worker: Running) -> None:
    """Wait until all is repaired; expect no difference, and that the operator sees none."""
    await is_repaired(world, worker)
    assert await compare(world, ROOMS) == []
    verified = await world.run_command("verify")
    assert verified.code == ExitCode.DONE, verified.out


@pytest.mark.parametrize("is_running", [True, False])
@pytest.mark.parametrize("shards", [1, 3])
async def test_a_cluster_goes_back_to_its_copies(
    world: World,
    cluster: RedisCluster,
    crowd: Crowd,
    tmp_path: Path,
    *,
    shards: int,
    is_running: bool,
) -> None:
    """One shard, or all of them from different moments; beside a worker, or between two."""
    async with world.run_worker() as worker:
        await loses(world, crowd, ACTS)
        await is_repaired(world, worker)
        copies = await back_up_one_by_one(world, cluster, crowd, tmp_path)
        chosen = dict(list(copies.items())[:shards])
        if is_running:
            await asyncio.to_thread(restore, cluster, chosen)
            await notices(worker, "redis_went_back")
            await is_right(world, worker)
    if not is_running:
        await asyncio.to_thread(restore, cluster, chosen)
        async with world.run_worker() as worker:
            await notices(worker, "redis_went_back")
            assert worker.entries("shards_changed")
            await is_right(world, worker)


@pytest.mark.parametrize("primaries", [3, 2])
async def test_a_new_cluster_gets_the_copies(
    world: World, cluster: RedisCluster, crowd: Crowd, tmp_path: Path, primaries: int
) -> None:
    """It has other nodes at other addresses, and other slots on each if there are fewer."""
    async with world.run_worker() as worker:
        await loses(world, crowd, ACTS)
        await is_repaired(world, worker)
        copies = await back_up_one_by_one(world, cluster, crowd, tmp_path)
    with RedisCluster(primaries, 0) as new:
        for copy in copies.values():
            await asyncio.to_thread(send, copy, new)
        async with connect(new.url) as redis:
            other = World(world.emulator, redis, new.url, tmp_path)
            other.settings |= world.settings | {"REDIS_URL": new.url}
            async with other.run_worker() as worker:
                await notices(worker, "redis_went_back")
                await is_right(other, worker)


async def test_keys_that_come_back_without_a_restart_need_a_reconcile(
    world: World, cluster: RedisCluster, crowd: Crowd, tmp_path: Path
) -> None:
    """No worker can see that. The cursor lies elsewhere, and is as new as before."""
    async with world.run_worker() as worker:
        await loses(world, crowd, ACTS)
        await is_repaired(world, worker)
        await loses(world, crowd, ACTS)
        copies = await back_up_one_by_one(world, cluster, crowd, tmp_path)
    (cursor,) = await world.cursors()
    holders = {cluster.primary_of(key) for key in (cursor, KEYS.meta, KEYS.channels)}
    node = next(node for node in copies if node not in holders)
    node.ask("FLUSHALL")
    await asyncio.to_thread(send, copies[node], cluster)

    async with world.run_worker() as worker:
        assert not worker.entries("shards_changed")
        assert await world.owes_nothing()
        verified = await world.run_command("verify")
        assert verified.code == ExitCode.DIFFERENCES, verified.out
        reconciled = await world.run_command("reconcile")
        assert reconciled.code == ExitCode.DONE, reconciled.err
        await is_right(world, worker)
