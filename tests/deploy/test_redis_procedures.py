"""What the documents tell an administrator of Redis to type, line by line, on a real server."""

import re
import shlex
import shutil
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import pytest
from redis import Redis
from redis.exceptions import AuthenticationError

from tests.deploy.dockerfile import ROOT
from tests.deploy.needed import needs
from tests.redis_server import RedisServer

PASSWORD: Final = "a-password"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    """A server with our file of users."""
    users = tmp_path / "users.acl"
    shutil.copy(ROOT / "deploy/redis-users.acl", users)
    with RedisServer(tmp_path, aclfile=str(users)) as server:
        yield server


def address(server: RedisServer, user: str) -> str:
    """Return the server's address with a user and the password."""
    return f"redis://{user}:{PASSWORD}@{urlsplit(server.url).netloc}/0"


def steps(document: str, heading: str, beginning: str) -> str:
    """Return a block of lines in a section of a document, by how its first line begins."""
    text = (ROOT / "deploy" / document).read_text(encoding="utf-8")
    section = text.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    blocks = re.findall(r"(?:^ {8}.*\n)+", section, re.MULTILINE)
    (block,) = (block for block in blocks if block.lstrip().startswith(beginning))
    return textwrap.dedent(block)


def typed(script: str, folder: Path, server: RedisServer) -> str:
    """Type lines in a shell whose redis-cli asks this server; return what they print."""
    client = folder / "redis-cli"
    program, port = shutil.which("redis-cli"), urlsplit(server.url).port
    client.write_text(f'#!/bin/sh\nexec {program} -p {port} "$@"\n')
    client.chmod(0o755)
    path = shlex.quote(str(folder))
    ran = subprocess.run(
        ["/bin/sh", "-e", "-c", f"PATH={path}:$PATH\n{script}"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
    return ran.stdout + ran.stderr


@needs("redis-cli", "that an administrator is left when default is off")
def test_an_administrator_is_left_when_default_is_off(server: RedisServer, tmp_path: Path) -> None:
    """Each command of redis-cli logs in anew, so ``default`` could not even save the users."""
    (tmp_path / "admin-password").write_text(f"{PASSWORD}\n")
    script = steps("runbook.md", "Users of Redis", "(printf '>'; tr -d '\\n' < admin-password)")

    assert typed(script, tmp_path, server).split() == ["OK", "OK", "OK"]

    saved = (tmp_path / "users.acl").read_text(encoding="utf-8")
    assert re.search(r"^user default off ", saved, re.MULTILINE)
    with Redis.from_url(server.url) as stranger, pytest.raises(AuthenticationError):
        stranger.ping()
    with Redis.from_url(address(server, "admin")) as administrator:
        assert administrator.execute_command("ACL", "SAVE")


def test_removal_deletes_every_key_of_the_namespace(server: RedisServer, tmp_path: Path) -> None:
    """And no other one, whatever strangers call a channel. The worker's user may do it."""
    keys = ["tally:meta", 'tally:{it\'s "a"\nother:key}:head', "other:key", "tallyho"]
    (tmp_path / "redis-url").write_text(f"{address(server, 'tally')}\n")
    code = steps("install.md", "Remove", "/opt/tally/bin/python -c")
    code = code.replace("/opt/tally/bin/python", sys.executable)
    code = code.replace("/etc/tally", str(tmp_path))
    with Redis.from_url(server.url, decode_responses=True) as redis:
        redis.execute_command("ACL", "SETUSER", "tally", "on", f">{PASSWORD}")
        redis.mset(dict.fromkeys(keys, "1"))

        subprocess.run(["/bin/sh", "-c", code], check=True)

        assert sorted(redis.scan_iter()) == ["other:key", "tallyho"]


@needs("redis-cli", "that a forgotten user leaves the files of Redis")
def test_a_deleted_user_leaves_the_files_of_redis(tmp_path: Path) -> None:
    """Redis refuses to save while it writes the append-only file anew, so saving is scheduled."""
    script = steps("personal-data.md", "Somebody asks to be forgotten", "redis-cli BGREWRITEAOF")
    with RedisServer(tmp_path, appendonly="yes") as server, Redis.from_url(server.url) as redis:
        redis.hset("tally:{room}:actions:1", "reaction:👍:canary", "2")
        redis.delete("tally:{room}:actions:1")
        assert b"canary" in written(tmp_path)

        said = typed(script, tmp_path, server)
        wait_until_saved(redis)

        assert "ERR" not in said
        assert b"canary" not in written(tmp_path)
        assert list(tmp_path.rglob("*.rdb"))


def written(folder: Path) -> bytes:
    """Return all that Redis has written in its folder."""
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


def wait_until_saved(redis: Redis) -> None:
    """Wait as the document says."""
    under_way = ("aof_rewrite_in_progress", "rdb_bgsave_in_progress", "aof_rewrite_scheduled")
    deadline = time.monotonic() + 60
    while any(map(redis.info("persistence").get, under_way)) or not redis.lastsave():
        assert time.monotonic() < deadline
        time.sleep(0.05)
