"""Sentinels on loopback: a primary, its replicas, and who watches over them.

Every method waits until it is done. In a test with an event loop call it as
``await asyncio.to_thread(sentinels.fail_over)``.
"""

from pathlib import Path
from typing import Any, Final

from tests.server_nodes import HOST, Login, Node, Nodes, wait_for

SERVICE: Final = "chats"
DOWN_MILLISECONDS: Final = 2000
FAILOVER_MILLISECONDS: Final = 5000


class Sentinels(Nodes):
    """One primary with replicas and sentinels. ``with Sentinels() as sentinels: …``."""

    def __init__(
        self,
        replicas: int = 2,
        sentinels: int = 3,
        *,
        program: Path | None = None,
        login: Login | None = None,
        sentinel_password: str = "",
        tls: bool = False,
        down_milliseconds: int = DOWN_MILLISECONDS,
        **config: str,
    ) -> None:
        """``config`` has options of the data servers.

        A server that is silent for ``down_milliseconds`` is taken for dead. A replica that has
        not heard from its primary for ten times as long never takes its place.
        """
        super().__init__(program, login, tls=tls)
        self._counts = replicas, sentinels
        self._down_milliseconds = down_milliseconds
        self._config = {name.replace("_", "-"): value for name, value in config.items()}
        self._sentinel_login = Login(password=sentinel_password)
        self.sentinels: list[Node] = []

    @property
    def url(self) -> str:
        """The address for clients, with every sentinel that runs."""
        return self.address()

    def address(self, service: str = SERVICE, **options: str) -> str:
        """Return the address of a service with these options."""
        scheme = "rediss+sentinel" if self.papers else "redis+sentinel"
        hosts = ",".join(node.address for node in self.sentinels if node.is_up)
        if self._sentinel_login.password:
            options = {"sentinel_password": self._sentinel_login.password, **options}
        place = f"{self.login.in_address()}{hosts}/{service}"
        return f"{scheme}://{place}{self.query(**options)}"

    def form(self) -> None:
        """Start the servers, then the sentinels."""
        replicas, sentinels = self._counts
        primary = self._start()
        for _ in range(replicas):
            self._start(f"replicaof {HOST} {primary.public_port}\n")
        wait_for(self._is_followed, "a replica does not follow the primary")
        for number in range(sentinels):
            self.sentinels.append(self._start_sentinel(number, primary))
        self.wait_until_healthy()

    def _start(self, role: str = "") -> Node:
        # In a file, because sentinels write there who follows whom: a restart must not undo that.
        configuration = self.folder / f"node-{len(self.nodes)}.conf"
        configuration.write_text(role, encoding="utf-8")
        options = {
            "appendonly": "yes",
            "save": "",
            "repl-diskless-sync-delay": "0",
            **self._config,
        }
        return self.start_node(options, (), str(configuration))

    def _start_sentinel(self, number: int, primary: Node) -> Node:
        lines = [
            f"sentinel monitor {SERVICE} {HOST} {primary.public_port} {self._counts[1] // 2 + 1}",
            f"sentinel down-after-milliseconds {SERVICE} {self._down_milliseconds}",
            f"sentinel failover-timeout {SERVICE} {FAILOVER_MILLISECONDS}",
        ]
        if self.login.user:
            lines.append(f"sentinel auth-user {SERVICE} {self.login.user}")
        if self.login.password:
            lines.append(f'sentinel auth-pass {SERVICE} "{self.login.password}"')
        own = self._sentinel_login.password
        if own:
            lines += [f'requirepass "{own}"', f'sentinel sentinel-pass "{own}"']
        configuration = self.folder / f"sentinel-{number}.conf"
        configuration.write_text("\n".join(lines) + "\n", encoding="utf-8")
        command = [str(self.program), str(configuration), "--sentinel"]
        folder = self.folder / f"sentinel-{number}"
        node = Node(command, folder, self._sentinel_login, self.papers)
        node.start()
        return node

    def stop(self) -> None:
        """End every process, and delete the data."""
        for node in self.sentinels:
            node.kill()
        super().stop()

    def states(self) -> list[dict[str, Any]]:
        """Return what each sentinel that runs says of the primary."""
        watching = [node for node in self.sentinels if node.is_up]
        return [_pairs(node.ask("SENTINEL", "MASTER", SERVICE)) for node in watching]

    def primary(self) -> Node:
        """Return the node that the sentinels call the primary."""
        state = self.states()[0]
        port = int(state["port"])
        return next(node for node in self.nodes if node.public_port == port)

    def replicas(self) -> list[Node]:
        """Return the other nodes that run."""
        primary = self.primary()
        return [node for node in self.up() if node is not primary]

    def _is_followed(self) -> bool:
        followers = [node for node in self.up() if not node.is_primary()]
        return len(followers) == len(self.up()) - 1 and all(
            node.is_following() for node in followers
        )

    def wait_until_healthy(self) -> None:
        """Return when every sentinel knows all others, and every node follows the primary."""
        watching = len([node for node in self.sentinels if node.is_up])
        followers = len(self.up()) - 1

        def is_healthy() -> bool:
            states = self.states()
            return (
                {state["flags"] for state in states} == {"master"}
                and len({state["port"] for state in states}) == 1
                and all(int(state["num-other-sentinels"]) >= watching - 1 for state in states)
                and all(int(state["num-slaves"]) >= followers for state in states)
                and self._is_followed()
            )

        wait_for(is_healthy, "the sentinels or the replicas are not ready")

    def fail_over(self, how: str = "") -> Node:
        """Ask for another primary, as planned; return it.

        The old one takes writes until a sentinel notices, and loses them: up to ten seconds of
        them. Valkey 9 knows COORDINATED, which loses none.
        """
        before = self.primary()
        sentinel = next(node for node in self.sentinels if node.is_up)
        # It refuses while it is still busy with the last failover.
        words = ("SENTINEL", "FAILOVER", SERVICE, *([how] if how else []))
        wait_for(lambda: sentinel.ask(*words), "no failover is possible")
        try:
            return self.wait_for_failover(before)
        except TimeoutError:
            # A busy machine may take too long, and then the sentinels give up.
            wait_for(lambda: sentinel.ask(*words), "no failover is possible")
            return self.wait_for_failover(before)

    def kill_primary(self) -> Node:
        """End the primary as a crash does; return it."""
        primary = self.primary()
        primary.kill()
        return primary

    def wait_for_failover(self, before: Node) -> Node:
        """Return the new primary, as soon as every sentinel agrees on one and it serves."""

        def has_another() -> bool:
            ports = {int(state["port"]) for state in self.states()}
            return len(ports) == 1 and before.public_port not in ports and self._serves()

        wait_for(has_another, "no other server becomes the primary")
        return self.primary()

    def _serves(self) -> bool:
        return self.primary().is_primary()


def _pairs(answer: Any) -> dict[str, Any]:
    if isinstance(answer, dict):
        return answer
    return dict(zip(answer[::2], answer[1::2], strict=True))
