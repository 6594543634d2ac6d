"""``tally users``: what is kept of somebody, and how somebody is forgotten."""

import asyncio
import io
import json
import signal
import sys
from collections.abc import AsyncIterator, Iterable
from contextlib import aclosing
from itertools import count
from pathlib import Path
from typing import Any, Final

import pytest

from reaction_tally import AsyncTallyReader
from tests.client.copies import Copy
from tests.mentions import mentions
from tests.redis_server import RedisServer
from tests.rollbacks import is_repaired
from tests.waiting import wait_until
from tests.worlds import KEYS, MESSAGE, ROOM, World, envelope, open_world
from worker.applying import forgotten_users, user_forgetting
from worker.errors import ExitCode, RedisUnfitError

QUICK: Final = {"TALLY_SETTLE_SECONDS": "0.3"}
HOSTILE: Final = (
    "can*ary",
    "can:ary:",
    ":canary",
    "can%3Aary",
    "[c]anary",
    "can\\ary",
    "can\nary",
    "{canary}",
    "can😀ary",
    "canary" * 15 + "ca",
)
NUMBERS: Final = count()
FORGET: Final = ("users", "forget", "--yes")


@pytest.fixture
async def world(valkey: RedisServer, real_redis: Any, tmp_path: Path) -> AsyncIterator[World]:
    """A world whose processes end with the test."""
    async with open_world(valkey.url, tmp_path) as world:
        yield world


@pytest.fixture
def quickly(monkeypatch: pytest.MonkeyPatch, world: World) -> None:
    """Let commands and workers of this process know of a request after a moment."""
    monkeypatch.setattr(forgotten_users, "FRESH_SECONDS", 0.3)
    monkeypatch.setattr(user_forgetting, "FRESH_SECONDS", 0.3)
    monkeypatch.setattr(user_forgetting, "MARGIN_SECONDS", 0.1)
    world.settings |= QUICK


def truth_without(world: World, *uuids: str) -> dict[str, int]:
    """Return value → count of the message in the room, as PubNub lists them, less these users."""
    counts: dict[str, int] = {}
    for action in world.state.actions(ROOM):
        if action.identity.uuid not in uuids:
            value = action.identity.value
            counts[value] = counts.get(value, 0) + 1
    return counts


async def command(world: World, *line: str) -> dict[str, Any]:
    """Run a command that prints JSON and ends well."""
    group, verb, *rest = line
    ended = await world.run_command(group, verb, "--json", *rest)
    assert ended.code == 0, ended
    # A worker of this process may have written to the log before.
    document: dict[str, Any] = json.loads(ended.out.splitlines()[-1])
    return document


async def forget(world: World, *uuids: str) -> dict[str, Any]:
    """Forget users."""
    return await command(world, *FORGET, "--", *uuids)


async def has_counted(world: World, *uuids: str) -> None:
    """Let somebody else react; wait until that is counted, and nothing of these users."""
    world.react("👍", f"after-{next(NUMBERS)}")
    await world.wait_for_counts(truth_without(world, *uuids))


@pytest.mark.usefixtures("quickly")
async def test_a_forgotten_user_stays_away(world: World) -> None:
    """From counts, events, backfills, reconciles and verifies. All else is exact."""
    world.add_past(130)  # so many have a ``who`` key
    async with world.run_worker() as worker:
        world.take_back(world.react("❤", "ana"))
        world.react("👍", "ana")
        world.react("🎉", "ana")
        await is_repaired(world, worker)
        assert await mentions(world.redis, "ana")

        report = await forget(world, "ana")

        assert (report["users"], report["actions"], report["removed"]) == (1, 2, 1)
        assert await mentions(world.redis, "ana") == set()
        assert await world.counts() == truth_without(world, "ana")
        again = world.react("😮", "ana")
        world.react("🔥", "ana")
        await has_counted(world, "ana")
        world.take_back(again)
        await has_counted(world, "ana")
        assert not worker.entries("redis_went_back")
        assert await world.owes_nothing()

    for verb in ("backfill", "reconcile", "verify"):
        assert (await world.run_command(verb)).code == ExitCode.DONE, verb
    assert await world.counts() == truth_without(world, "ana")
    assert await mentions(world.redis, "ana") == set()


@pytest.mark.usefixtures("quickly")
async def test_a_new_worker_knows_who_is_forgotten(world: World) -> None:
    """Its first backfill reads the actions of everybody. A round looks at everything."""
    world.add_past(20)
    world.react("👍", "ana", published=False)
    assert (await world.run_command("backfill")).code == 0
    await forget(world, "ana")
    await world.redis.delete(KEYS.channels, *await world.redis.keys("tally:cursor:*"))

    async with world.run_worker(TALLY_RECONCILE_SECONDS="1", TALLY_RECONCILE_FULL_SECONDS="4"):
        await has_counted(world, "ana")
        await wait_until(world.owes_nothing)

    assert (await world.run_command("verify")).code == ExitCode.DONE
    assert await mentions(world.redis, "ana") == set()


@pytest.mark.usefixtures("quickly")
async def test_hostile_names_are_found_everywhere(world: World) -> None:
    """No key of the namespace holds one of them afterwards, whatever its type. Others stay."""
    world.add_past(130)
    async with world.run_worker() as worker:
        for uuid in HOSTILE:
            world.take_back(world.react("a:b%", uuid), uuid)
            world.react("👍", uuid)
            world.react("can*", uuid)
            broken = envelope(i=uuid, data={"value": ..., "actionTimetoken": "17600000002020799"})
            world.state.inject(ROOM, broken)
        world.react("👍", "canar")
        await is_repaired(world, worker)

        async def is_quarantined() -> bool:
            return len(await world.quarantine()) == len(HOSTILE)

        await wait_until(is_quarantined)
        for uuid in HOSTILE:
            assert KEYS.quarantine in await mentions(world.redis, uuid)

        report = await forget(world, *HOSTILE)

        assert report["actions"] == 2 * len(HOSTILE)
        assert report["quarantine"] == len(HOSTILE)
        for uuid in HOSTILE:
            assert await mentions(world.redis, uuid) == set()
            world.state.inject(ROOM, envelope(i=uuid, data={"value": ...}))
        await has_counted(world, *HOSTILE)

    assert await world.quarantine() == []
    assert (await world.run_command("verify")).code == ExitCode.DONE


@pytest.mark.usefixtures("quickly")
async def test_an_undo_and_a_reconcile_bring_everything_back(world: World) -> None:
    """Exactly what PubNub lists, beside a worker that runs."""
    world.add_past(10)
    async with world.run_worker() as worker:
        world.react("👍", "ana")
        world.react("👍", "ben")
        await is_repaired(world, worker)
        await forget(world, "ana", "ben")
        assert not await world.is_exact()

        assert await command(world, "users", "forget", "--undo", "ana", "ben", "carl") == {
            "users": 3,
            "undone": 2,
        }

        again = await world.run_command("users", "forget", "--undo", "ana")
        assert "None of these users was forgotten: nothing changes." in again.out
        assert "counted again" not in again.out

        await asyncio.sleep(forgotten_users.FRESH_SECONDS)
        assert (await world.run_command("reconcile", ROOM)).code == ExitCode.DONE
        assert await world.is_exact()
        world.react("🎉", "ana")
        await world.settles()


@pytest.mark.usefixtures("quickly")
async def test_followers_end_with_exact_copies(world: World) -> None:
    """One that is in the middle of the journal gets a reset."""
    world.add_past(5)
    async with world.run_worker() as worker, AsyncTallyReader(world.redis) as reader:
        await is_repaired(world, worker)
        behind, copy = Copy(ROOM), Copy(ROOM)
        behind.read(await reader.page(ROOM, [MESSAGE]))
        world.react("👍", "ana")
        await world.settles()
        world.react("🎉", "ben")
        await world.settles()
        copy.read(await reader.page(ROOM, [MESSAGE]))

        await forget(world, "ana")

        for follower, resets in ((behind, 1), (copy, 0)):
            await follows(reader, follower, {"reaction:👍": 5, "reaction:🎉": 1})
            assert follower.resets == resets


async def follows(reader: AsyncTallyReader, copy: Copy, expected: dict[str, int]) -> None:
    """Let a copy follow until it holds these counts."""
    # Closed at once: else its connection may be left when the loop ends.
    async with aclosing(reader.changes(since=copy.since)) as changes:
        async for item in changes:
            if copy.take(item):
                copy.read(await reader.page(ROOM, [MESSAGE]))
            if copy.tallies.get(MESSAGE) == expected:
                return


async def test_two_workers_in_processes_of_their_own(world: World) -> None:
    """With the real waits, and one more process for the command. Both go on."""
    world.settings |= QUICK
    world.add_past(5)
    first, second = await world.follow(), await world.follow()
    world.react("👍", "ana")
    await world.settles()

    forgetting = world.start(*FORGET, "ana")
    await wait_until(lambda: "Waiting 15 s" in forgetting.err, what=forgetting.tail)
    number = 0
    while forgetting.is_alive:  # a worker may count some of these, for ten seconds
        number += 1
        world.react(f"{number}", "ana")
        await asyncio.sleep(0.2)
    assert forgetting.process.returncode == 0, forgetting.tail()
    world.react("🎉", "ana")
    await has_counted(world, "ana")

    assert await mentions(world.redis, "ana") == set()
    assert first.is_alive
    assert second.is_alive
    assert "redis_went_back" not in first.err + second.err
    assert await world.owes_nothing()


async def test_an_interrupted_command_is_typed_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C in the wait: everybody is refused already, and counts are exact."""
    world.settings |= QUICK
    world.react("👍", "ana")
    world.react("👍", "ben")
    assert (await world.run_command("backfill")).code == 0

    child = world.start(*FORGET, "ana")
    await wait_until(lambda: "Waiting" in child.err, what=child.tail)
    child.process.send_signal(signal.SIGINT)
    await child.ended()

    assert child.process.returncode == 130
    assert await world.counts() == {"👍": 1}
    monkeypatch.setattr(user_forgetting, "FRESH_SECONDS", 0)
    monkeypatch.setattr(user_forgetting, "MARGIN_SECONDS", 0)
    assert (await forget(world, "ana"))["actions"] == 0
    assert (await world.run_command("backfill")).code == 0
    assert await world.counts() == {"👍": 1}


@pytest.mark.usefixtures("quickly")
async def test_an_export_has_everything(world: World) -> None:
    """And says so if there is nothing."""
    async with world.run_worker() as worker:
        gone = world.react("🎉", "ana")
        world.take_back(gone)
        kept = world.react("👍", "ana")
        world.react("👍", "ben")
        world.state.inject(ROOM, envelope(i="ana", data={"value": ...}))
        await is_repaired(world, worker)
        await wait_until(world.quarantine)

    exported = (await command(world, "users", "export", "ana", "carl"))["users"]
    lines = (await world.run_command("users", "export", "ana", "carl")).out.splitlines()

    ana = exported["ana"]
    assert ana["forgotten_at"] is None
    action = {"channel": ROOM, "message_timetoken": MESSAGE, "type": "reaction"}
    ((live, live_at),) = [(item, item.pop("time")) for item in ana["actions"]]
    assert live == {**action, "value": "👍", "action_timetoken": str(kept)}
    assert live_at.endswith("Z")
    assert [(item["value"], item["action_timetoken"]) for item in ana["removed"]] == [
        ("🎉", str(gone))
    ]
    assert {(item["event"], item["value"]) for item in ana["journal"]} == {
        ("added", "🎉"),
        ("removed", "🎉"),
        ("added", "👍"),
    }
    assert [item["channel"] for item in ana["quarantine"]] == [ROOM]
    empty: dict[str, Any] = {
        "forgotten_at": None,
        "actions": [],
        "removed": [],
        "journal": [],
        "quarantine": [],
    }
    assert exported["carl"] == empty
    assert lines[0] == (
        "ana: 1 live actions, 1 removed actions, 3 changes in journals, "
        "1 entries in the quarantine."
    )
    assert lines[-1] == "carl: nothing is kept."
    assert any(str(kept) in line and "live" in line for line in lines)

    await forget(world, "ana")
    ended = await world.run_command("users", "export", "ana")
    assert ended.code == 0
    forgotten, nothing = ended.out.splitlines()
    assert forgotten.startswith("ana: forgotten since 20")
    assert nothing == "ana: nothing is kept."


@pytest.mark.usefixtures("quickly")
async def test_people_are_told_what_is_left(world: World) -> None:
    """PubNub has the actions, and so have backups."""
    world.react("👍", "ana")
    assert (await world.run_command("backfill")).code == 0

    ended = await world.run_command(*FORGET, "ana")

    done, pubnub, backups = ended.out.splitlines()
    assert done.startswith("1 user forgotten: 1 live actions, 0 removed actions, 1 entries of")
    assert "PubNub may still list the 1 live actions" in pubnub
    assert "Remove action API" in pubnub
    assert "deploy/personal-data.md" in backups
    assert ended.err == (
        "Waiting 1 s, until no worker can hold an event that it read before. Ctrl-C does no harm.\n"
    )


def typed(text: str) -> io.TextIOWrapper:
    """Return an input with a text in it."""
    return io.TextIOWrapper(io.BytesIO(text.encode()), encoding="utf-8")


def unreadable(data: bytes) -> io.TextIOWrapper:
    """Return an input that is no UTF-8, as the locale C reads it."""
    return io.TextIOWrapper(io.BytesIO(data), encoding="utf-8", errors="surrogateescape")


@pytest.mark.usefixtures("quickly")
async def test_users_may_come_from_standard_input(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One a line: so they stand in no list of processes. Nothing but line ends is cut off."""
    names = ["ana", " ben ", "a\u2028b"]
    for name in names:
        world.react("👍", name)
    assert (await world.run_command("backfill")).code == 0
    monkeypatch.setattr(sys, "stdin", typed("\ufeffana\r\n\n ben \na\u2028b\nana\n"))

    report = await forget(world, "-")

    assert (report["users"], report["actions"]) == (3, 3)


@pytest.mark.parametrize(
    ("line", "text", "sentence"),
    [
        (("export", "-"), typed("\n\n"), "Standard input names no user"),
        (("export", "-"), None, "Standard input names no user"),
        (("forget", "ana"), None, "Nobody can be asked: add --yes."),
        (("export", "-"), unreadable(b"\xff\n"), "Standard input is no text in UTF-8."),
        (("forget", "--yes", "-"), unreadable("ana\n".encode("utf-16")), "is no text in UTF-8."),
        (("forget", "--yes", "\udcff"), io.StringIO(), "A uuid is no text in UTF-8."),
        (("forget", "--yes", ""), io.StringIO(), "A uuid is empty."),
        (("forget", "ana"), io.StringIO(), "Nobody can be asked: add --yes."),
        (("forget", "--undo", "ana", ""), io.StringIO(), "A uuid is empty."),
        (("export",), io.StringIO(), "Missing argument"),
    ],
)
async def test_a_wrong_line_is_refused(
    world: World, monkeypatch: pytest.MonkeyPatch, line: Iterable[str], text: Any, sentence: str
) -> None:
    """With a sentence, and before anything is read."""
    monkeypatch.setattr(sys, "stdin", text)

    ended = await world.run_command("users", *line)

    assert ended.code == ExitCode.USAGE
    assert sentence in ended.err
    assert await world.redis.dbsize() == 0


@pytest.mark.parametrize("line", [("export",), ("forget", "--yes"), ("forget", "--undo")])
async def test_an_empty_namespace_is_refused(world: World, line: tuple[str, ...]) -> None:
    """It is more likely another Redis than one without users."""
    ended = await world.run_command("users", *line, "ana")

    assert ended.code == ExitCode.REDIS_UNFIT
    assert "The namespace tally holds no tallies at redis://" in ended.err
    assert await world.redis.dbsize() == 0


@pytest.mark.parametrize("line", [("export",), ("forget", "--yes"), ("forget", "--undo")])
async def test_another_schema_is_refused(world: World, line: tuple[str, ...]) -> None:
    """Its keys may mean something else."""
    await world.redis.hset(KEYS.meta, mapping={"schema": "9", "subscribe_key": "x"})

    ended = await world.run_command("users", *line, "ana")

    assert ended.code == ExitCode.REDIS_UNFIT
    assert "holds schema 9" in ended.err
    assert await world.redis.keys() == [KEYS.meta]


@pytest.mark.usefixtures("quickly")
@pytest.mark.parametrize(("answer", "code"), [("y\n", 0), ("n\n", 1), ("\n", 1)])
async def test_a_person_is_asked(
    world: World, answer: str, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only yes is yes. No name is shown: somebody may look on."""
    world.react("👍", "ana")
    assert (await world.run_command("backfill")).code == 0
    screen = io.StringIO(answer)
    monkeypatch.setattr(screen, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stdin", screen)

    ended = await world.run_command("users", "forget", "ana")

    assert ended.code == code, ended.err
    assert "Delete everything that is kept of this user?" in ended.err
    assert await world.counts() == ({} if code == 0 else {"👍": 1})


@pytest.mark.usefixtures("quickly")
async def test_the_wait_is_shown_on_a_terminal(world: World) -> None:
    """With what is left of it."""
    world.react("👍", "ana")
    assert (await world.run_command("backfill")).code == 0

    ended = await world.commands().do_on_a_terminal(*FORGET, "ana")

    assert ended.code == 0, ended.err
    assert "Waiting until no worker can hold an event" in ended.err
    assert "Ctrl-C" not in ended.err


@pytest.mark.usefixtures("quickly")
async def test_a_damaged_key_is_named(world: World) -> None:
    """The user is not forgotten in full until it is mended."""
    world.react("👍", "ana")
    assert (await world.run_command("backfill")).code == 0
    await world.redis.set("tally:{hall}:actions:17600000001728660", "not ours")

    ended = await world.run_command(*FORGET, "ana")

    assert ended.code == ExitCode.REDIS_UNFIT
    assert "redis-cli DEL 'tally:{hall}:actions:17600000001728660'" in ended.err
    await world.redis.delete("tally:{hall}:actions:17600000001728660")
    await forget(world, "ana")
    assert await mentions(world.redis, "ana") == set()


@pytest.mark.usefixtures("quickly")
@pytest.mark.parametrize("field", ["key", "another"])
async def test_a_damaged_hash_stops_a_worker_with_a_sentence(world: World, field: str) -> None:
    """It cannot know whom not to count. The doctor and other commands say the same."""
    world.react("👍", "ana")

    async def end_of_a_worker() -> None:
        async with world.run_worker() as worker:
            await world.wait_for_counts({"👍": 1})
            await forget(world, "ana")
            await world.redis.hset(KEYS.forgotten, field, "not ours")
            world.react("🎉", "ana")
            await wait_until(worker.work.done, what=lambda: worker.err)

    with pytest.raises(RedisUnfitError, match=f"^Redis's key {KEYS.forgotten} h") as raised:
        await end_of_a_worker()

    assert await world.counts() == {}
    for line in (("doctor",), ("verify",), ("users", "export", "ana")):
        ended = await world.run_command(*line)
        assert ended.code == ExitCode.REDIS_UNFIT, line
        assert str(raised.value) in ended.out + ended.err
