"""``tally_service``: emulator, Valkey and worker as processes, for tests of applications."""

import os
import re
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, cast
from urllib.parse import unquote, urlsplit

import pytest
import redis
from pubnub.managers import TokenManager as PNTokens
from redis.asyncio import Redis

from reaction_tally import TallyReader
from reaction_tally.testing import (
    NotInstalledError,
    PubNubEmulator,
    ReactionRefusedError,
    ServiceFailedError,
    TallyService,
    pubnub_emulator,
    tally_service,
)
from tests.redis_server import RedisServer
from tests.waiting import wait_until

pytestmark = pytest.mark.processes

ROOT: Final = Path(__file__).parents[2]
MESSAGE: Final = "17600000001728660"
HOSTILE: Final = "a:b%3A{c}/?&\n"


@pytest.fixture(scope="module")
def service() -> Iterator[TallyService]:
    """A service that follows two names."""
    with tally_service(["room", "hall.*"]) as service:
        yield service


def ids_of(service: TallyService) -> set[int]:
    """Return the ids of all processes of a service: also of its Valkey."""
    ids = [process.id for process in cast("Any", service)._following.processes]
    valkey = Path(unquote(urlsplit(service.redis_url).path)).with_name("valkey.pid")
    return {*ids, int(valkey.read_text())}


def runs(process: int) -> bool:
    """Tell whether a process of this id is there."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


async def test_what_happened_is_counted_when_it_settles(service: TallyService) -> None:
    """Additions and removals, whatever their text; nothing is in doubt then."""
    at = service.react("room", 5, "👍", "ana")
    service.react("room", "5", "👍", "ben")
    service.react("room", "5", HOSTILE, HOSTILE, type="re:act")
    service.remove("room", "5", "👍", "ben")
    service.settle()

    page = service.reader.page("room", [5], me="ana")
    assert page.messages["5"].counts == {"reaction": {"👍": 1}, "re:act": {HOSTILE: 1}}
    assert [it.mine_at for it in page.messages["5"].reactions if it.mine] == [at]
    assert not page.in_doubt
    assert cast("float", service.reader.heartbeat_age()) < 30
    assert await service.async_reader.page("room", [5], me="ana") == page


def test_what_cancels_itself_out_is_counted_too(service: TallyService) -> None:
    """Nothing comes later: an application that follows the journal has seen it all."""
    for number in range(20):
        service.react("hall.a", MESSAGE, "👍", f"u{number}")
        service.remove("hall.a", MESSAGE, "👍", f"u{number}")
        service.settle()
        head = service.reader.page("hall.a", [MESSAGE]).position
        entries = _journal(service, "hall.a")
        assert entries[-1][0].decode() == head
        assert sum(len(fields) - 2 for _, fields in entries) == 2 * (number + 1)


def _journal(service: TallyService, channel: str) -> list[Any]:
    with redis.Redis.from_url(service.redis_url) as client:
        return list(cast("Any", client).xrange(f"tally:{{{channel}}}:journal"))


def test_a_burst_settles(service: TallyService) -> None:
    """More reactions than one answer of PubNub holds: the worker repairs what it missed."""
    for number in range(150):
        service.react("hall.b", MESSAGE, "👍", f"u{number}")
    service.settle()

    assert service.reader.get("hall.b", MESSAGE) == {"reaction": {"👍": 150}}


def test_what_pubnub_refuses_is_refused(service: TallyService) -> None:
    """With its reason. A channel that nobody follows is a mistake of the test."""
    service.react("room", MESSAGE, "🎉", "ana")
    with pytest.raises(ReactionRefusedError, match="409, Action Already Added"):
        service.react("room", MESSAGE, "🎉", "ana")
    with pytest.raises(ReactionRefusedError, match="no reaction '🎉' of 'ben'"):
        service.remove("room", MESSAGE, "🎉", "ben")
    with pytest.raises(ValueError, match=r"follows room, hall\.\*.*'lobby'.*tally_channels"):
        service.react("lobby", MESSAGE, "🎉", "ana")


async def test_nothing_runs_after_the_block() -> None:
    """Also after an error. No file stays."""
    with pytest.raises(ZeroDivisionError), tally_service() as service:  # noqa: PT012 - it is the block
        ids = ids_of(service)
        folder = Path(unquote(urlsplit(service.redis_url).path)).parents[1]
        assert len(list(filter(runs, ids))) == 3
        assert folder.exists()
        raise ZeroDivisionError

    await wait_until(lambda: not any(map(runs, ids)))
    assert not folder.exists()


async def test_a_worker_that_dies_is_named() -> None:
    """A wait for it ends at once, and its Valkey ends with the block."""
    with tally_service() as service:
        ids = ids_of(service)
        _, worker = cast("Any", service)._following.processes
        os.kill(worker.id, signal.SIGKILL)
        with pytest.raises(ServiceFailedError, match="tally run has ended, with status -9"):
            service.settle()

    await wait_until(lambda: not any(map(runs, ids)))


def test_an_error_says_why_nothing_starts() -> None:
    """In the words of the worker."""
    sentence = r"status 2\.[^$]*The wildcard 'a\.b\.c\.\*'"
    with pytest.raises(ServiceFailedError, match=sentence), tally_service(["a.b.c.*"]):
        pass


def test_one_channel_is_no_list_of_channels() -> None:
    """A text would be a channel for each letter."""
    with pytest.raises(TypeError, match="channels are a list"), tally_service("hall"):
        pass


def test_a_redis_that_is_not_there_is_named() -> None:
    """Without a traceback of redis-py."""
    url = "redis://127.0.0.1:1/9"
    sentence = "The Redis of redis_url does not answer"
    with pytest.raises(ServiceFailedError, match=sentence), tally_service(redis_url=url):
        pass


def test_an_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command comes with the worker, which the client does not know."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sysconfig, "get_path", lambda _: str(tmp_path))
    distribution = r"pip install './client' '\.\[embedded\]'"
    with pytest.raises(NotInstalledError, match=distribution), tally_service():
        pass


async def test_a_redis_that_runs_already_is_used(
    real_redis: Redis, valkey: RedisServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """No tally stays in it, and nothing else is touched. Settings around the tests do not count."""
    (tmp_path / "worker.py").write_text("raise SystemExit(7)\n")
    for name, value in (
        ("TALLY_TYPES", "edited"),
        ("PYTHONPATH", str(tmp_path)),
        ("HTTP_PROXY", "http://127.0.0.1:1"),
    ):
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    await real_redis.set("tally-of-others", "1", ex=60)
    with tally_service(redis_url=valkey.url) as service:
        service.react("room", MESSAGE, "👍", "ana")
        service.settle()
        with TallyReader.from_url(valkey.url) as reader:
            assert reader.get("room", MESSAGE) == {"reaction": {"👍": 1}}
        refusal = pytest.raises(ServiceFailedError, match="holds tallies in the namespace 'tally'")
        with refusal, tally_service(redis_url=valkey.url):
            pass

    assert await real_redis.keys() == ["tally-of-others"]


def test_an_emulator_with_access_manager_refuses_strangers() -> None:
    """Its own users sign. An application does, too, or has a token."""
    with pubnub_emulator(access_manager=True) as pubnub:
        pubnub.react("room", MESSAGE, "👍", "it's ben & co")
        pubnub.remove("room", MESSAGE, "👍", "it's ben & co")
        token = pubnub.grant("ana", ["room"], minutes=1)
        stranger = PubNubEmulator(pubnub.origin)

        with pytest.raises(ReactionRefusedError, match="403, Supplied authorization key"):
            stranger.react("room", MESSAGE, "👍", "ana")
        with pytest.raises(ReactionRefusedError, match="There is no token: 403"):
            stranger.grant("ana", ["room"])
        assert pubnub.secret_key
        assert PNTokens.parse_token(token)["authorized_uuid"] == "ana"


def test_an_emulator_is_open_by_default() -> None:
    """It has no secret key, and grants nothing."""
    with pubnub_emulator() as pubnub:
        pubnub.react("room", MESSAGE, "👍", "ana")
        assert pubnub.secret_key is None
        with pytest.raises(ReactionRefusedError, match="Access Manager is off"):
            pubnub.grant("ana", ["room"])


CHAT: Final = """
from reaction_tally import TallyReader

reader = TallyReader.from_url("redis://nowhere.invalid:6379")

def line(channel, message):
    reactions = reader.page(channel, [message], names=2).messages[message].reactions
    return " ".join(f"{it.value} {it.count} {','.join(it.names)}" for it in reactions)
"""


OTHER_TESTS: Final = """
import pytest

@pytest.fixture
def tally_channels():
    return ["hall", "news.*"]

def test_other_channels_are_followed(tally_service):
    tally_service.react("news.today", "5", "up", "ana")
    tally_service.settle()
    assert tally_service.reader.get("news.today", "5") == {"reaction": {"up": 1}}
    assert tally_service.reader.channels() == {"hall", "news.today"}

def test_an_emulator_alone_takes_reactions(pubnub_emulator):
    assert pubnub_emulator.positions() == {}
    pubnub_emulator.react("anywhere", "5", "up", "ana")
    pubnub_emulator.remove("anywhere", "5", "up", "ana")
    assert set(pubnub_emulator.positions()) == {"anywhere"}
"""


def test_the_fixtures_of_the_readme_work(tmp_path: Path) -> None:
    """In a project of somebody else, as they are written there."""
    readme = (ROOT / "client/README.md").read_text(encoding="utf-8")
    section = readme.partition("\n## Testing your own code\n")[2].partition("\n## ")[0]
    blocks = re.findall(r"(?:^ {4}.*\n|^\n(?= {4}))+", section, re.MULTILINE)
    conftest, tests = (re.sub(r"^ {4}", "", block, flags=re.MULTILINE) for block in blocks)
    (tmp_path / "conftest.py").write_text(conftest, encoding="utf-8")
    (tmp_path / "test_chat.py").write_text(tests, encoding="utf-8")
    (tmp_path / "test_more.py").write_text(OTHER_TESTS, encoding="utf-8")
    (tmp_path / "chat.py").write_text(CHAT, encoding="utf-8")

    words = ("-q", "-W", "error", "-p", "no:cacheprovider", "-p", "no:asyncio", "--rootdir", ".")
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", *words], cwd=tmp_path, capture_output=True, check=False
    )

    assert ran.returncode == 0, ran.stdout.decode()
    assert b"4 passed" in ran.stdout
