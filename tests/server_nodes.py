"""Several servers that belong together: the nodes of a cluster, or a primary and its replicas."""

import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import quote

import trustme
from redis import Redis
from redis.exceptions import RedisError, ResponseError

from tests.redis_server import ServerProcess, free_port, server_program

HOST: Final = "127.0.0.1"
WAIT_SECONDS: Final = 60.0
LOOK_SECONDS: Final = 0.02
NO_PASSWORD: Final = "this-is-not-the-password"
"""A replica with this password cannot follow its primary."""


@dataclass(frozen=True)
class Login:
    """How clients and other nodes are known to a server: no names, a password, or a user."""

    user: str = ""
    password: str = ""

    def server_options(self) -> list[str]:
        """Return the options of a data server."""
        if not self.password:
            return []
        options = ["--masterauth", self.password]
        if not self.user:
            return [*options, "--requirepass", self.password]
        options += ["--masteruser", self.user]
        options += ["--user", "default", "off"]
        return [*options, "--user", self.user, "on", f">{self.password}", "~*", "&*", "+@all"]

    def client_options(self) -> dict[str, str]:
        """Return the options of redis-py's clients."""
        options = {"username": self.user, "password": self.password}
        return {name: value for name, value in options.items() if value}

    def words(self) -> list[str]:
        """Return the end of MIGRATE."""
        if self.user:
            return ["AUTH2", self.user, self.password]
        return ["AUTH", self.password] if self.password else []

    def in_address(self) -> str:
        """Return the part of an address before the hosts, percent-encoded."""
        if not self.password:
            return ""
        return f"{quote(self.user, safe='')}:{quote(self.password, safe='')}@"


class Papers:
    """An authority, and a certificate of this machine from it: three files in a folder."""

    def __init__(self, folder: Path, *names: str) -> None:
        self.authority = folder / "ca.pem"
        self.certificate = folder / "node.pem"
        self.key = folder / "node.key"
        authority = trustme.CA()
        node = authority.issue_cert(*names)
        authority.cert_pem.write_to_path(self.authority)
        node.cert_chain_pems[0].write_to_path(self.certificate)
        node.private_key_pem.write_to_path(self.key)

    def server_options(self, port: int) -> list[str]:
        """Return the options of a server that speaks TLS on this port, also to other nodes."""
        return [
            *("--tls-port", str(port)),
            *("--tls-replication", "yes"),
            *("--tls-auth-clients", "no"),
            *("--tls-ca-cert-file", str(self.authority)),
            *("--tls-cert-file", str(self.certificate)),
            *("--tls-key-file", str(self.key)),
        ]


class Node:
    """One server of several. It keeps its ports and its data across starts.

    ``port`` speaks plain text, for the tests' own commands. ``public_port`` is the one that
    clients and other nodes use: another one where TLS is wanted.
    """

    def __init__(
        self,
        command: list[str],
        folder: Path,
        login: Login,
        papers: Papers | None = None,
    ) -> None:
        folder.mkdir()
        self.folder = folder
        tls_port = free_port() if papers else 0
        tls = papers.server_options(tls_port) if papers else []
        self._login = login
        self._server = ServerProcess([*command, *tls], folder)
        self.port = self._server.port
        self.public_port = tls_port or self.port
        self.address = f"{HOST}:{self.public_port}"

    @property
    def url(self) -> str:
        """The address of this node alone, in plain text."""
        return f"redis://{self._login.in_address()}{HOST}:{self.port}"

    @property
    def is_up(self) -> bool:
        """Whether its process runs."""
        return self._server.is_up

    def ask(self, *command: str | int) -> Any:
        """Send one command; return the answer as redis-py gives it."""
        options: dict[str, Any] = self._login.client_options()
        with Redis(
            host=HOST,
            port=self.port,
            decode_responses=True,
            socket_timeout=WAIT_SECONDS,
            **options,
        ) as client:
            return client.execute_command(*command)

    def info(self) -> dict[str, Any]:
        """Return the server's INFO."""
        answer: dict[str, Any] = self.ask("INFO")
        return answer

    def log(self) -> str:
        """Return the text of the server's log."""
        return self._server.log()

    def start(self, *options: str) -> None:
        """Start it with the data it has, this once with these options."""
        self._server.start(*options)

    def end(self) -> None:
        """End it as an operator does."""
        self._server.end()

    def kill(self) -> None:
        """End it as a crash does."""
        self._server.kill()

    def pause(self) -> None:
        """Stop its clock: connections stay open, and nothing answers."""
        self._server.pause()

    def resume(self) -> None:
        """Let it go on."""
        self._server.resume()

    def is_primary(self) -> bool:
        """Return whether it says that it is a primary; False if it does not answer."""
        try:
            return self.is_up and self.ask("ROLE")[0] == "master"
        except RedisError:
            return False

    def is_following(self) -> bool:
        """Return whether it is a replica that has all its primary has sent."""
        try:
            return bool(self.info().get("master_link_status") == "up")
        except RedisError:
            return False

    def stop_following(self) -> None:
        """Let this replica lag: it keeps what it has, and gets no more from its primary.

        For others it is as healthy as before: it can be made the primary.
        """
        self.ask("CONFIG", "SET", "masterauth", NO_PASSWORD)
        self.ask("CLIENT", "KILL", "TYPE", "master")
        wait_for(lambda: not self.is_following(), "the replica still follows its primary")

    def follow_again(self) -> None:
        """End ``stop_following``."""
        self.ask("CONFIG", "SET", "masterauth", self._login.password)
        with suppress(ResponseError):  # it has no file to write to
            self.ask("CONFIG", "REWRITE")


class Nodes:
    """Nodes in a temporary folder, for a ``with`` block: all processes end, the data goes."""

    names: tuple[str, ...] = (HOST, "localhost")
    """What the certificates are for."""

    def __init__(
        self,
        program: Path | None,
        login: Login | None,
        *,
        tls: bool,
    ) -> None:
        self.program = program or server_program()
        self.login = login or Login()
        self.folder = Path(tempfile.mkdtemp(prefix="nodes-"))
        self.papers = Papers(self.folder, *self.names) if tls else None
        self.nodes: list[Node] = []

    def __enter__(self) -> Self:
        try:
            self.form()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def form(self) -> None:
        """Start the nodes, and make one thing of them."""
        raise NotImplementedError

    def stop(self) -> None:
        """End every process, and delete the data."""
        for node in self.nodes:
            node.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def start_node(
        self, options: Mapping[str, str], extra: tuple[str, ...] = (), *before: str
    ) -> Node:
        """Start one more node with these options."""
        words = [word for name, value in options.items() for word in (f"--{name}", value)]
        command = [str(self.program), *before, *words, *self.login.server_options(), *extra]
        folder = self.folder / f"node-{len(self.nodes)}"
        node = Node(command, folder, self.login, self.papers)
        self.nodes.append(node)
        node.start()
        return node

    def up(self) -> list[Node]:
        """Return the nodes whose process runs."""
        return [node for node in self.nodes if node.is_up]

    def query(self, **options: str) -> str:
        """Return the end of an address: the authority where TLS is on, and these options."""
        if self.papers:
            options = {"ssl_ca_certs": str(self.papers.authority), **options}
        pairs = [f"{name}={quote(value, safe='')}" for name, value in options.items()]
        return "?" + "&".join(pairs) if pairs else ""


def wait_for(condition: Callable[[], object], problem: str) -> None:
    """Return as soon as the condition holds. An error of Redis counts as no.

    Raises:
        TimeoutError: it did not hold in time.
    """
    deadline = time.monotonic() + WAIT_SECONDS
    while True:
        with suppress(RedisError):
            if condition():
                return
        if time.monotonic() > deadline:
            raise TimeoutError(problem)
        time.sleep(LOOK_SECONDS)
