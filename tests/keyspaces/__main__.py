"""Makes the golden copy of a release, by the code of its commit.

python -m tests.keyspaces v0.3.0
"""

import argparse
import asyncio
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.keyspaces.copies import HERE, Copy, Made
from tests.keyspaces.dump import read
from tests.keyspaces.history import AT_THE_END, History
from tests.processes import environment
from tests.redis_server import RedisServer
from tests.releases import Environment, NoHistoryError, checked_out, commit_of
from tests.worlds import open_world


async def make(release: Environment, commit: str, folder: Path) -> Copy:
    """Let the history happen by the code of a release; keep what it leaves behind."""
    version = version_of(release, folder)
    with RedisServer() as server:
        async with open_world(server.url, folder) as world:
            await History(world, release).play()
            copy = Copy(HERE / version)
            made = Made(version=version, commit=commit, settings=AT_THE_END)
            copy.save(made, await read(world.redis), world.state)
    return copy


def version_of(release: Environment, folder: Path) -> str:
    """Return what the program says that it is."""
    said = subprocess.run(
        [sys.executable, "-m", "worker", "--version"],
        cwd=folder,
        env=environment(release),
        capture_output=True,
        text=True,
        check=True,
    )
    return said.stdout.split()[-1]


def main() -> int:
    """Make one copy."""
    arguments = argparse.ArgumentParser(prog="tests.keyspaces", description=__doc__)
    arguments.add_argument("reference", help="a commit or a tag")
    reference = arguments.parse_args().reference
    with tempfile.TemporaryDirectory(prefix="tally-keyspace-") as folder:
        code = Path(folder) / "code"
        try:
            release, commit = checked_out(reference, code), commit_of(reference)
        except NoHistoryError as error:
            print(error)  # noqa: T201 - a program's output
            return 1
        copy = asyncio.run(make(release, commit, Path(folder)))
    print(f"{copy.folder}: {len(copy.lines)} keys")  # noqa: T201 - as above
    return 0


if __name__ == "__main__":
    sys.exit(main())
