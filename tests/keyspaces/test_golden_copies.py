"""Today's program on what each release wrote: it reads all of it, and goes on from it."""

import json
from typing import Any

import pytest

from reaction_tally.keys import Keys
from tests.keyspaces.copies import Copy
from tests.keyspaces.dump import FOR_EVER, read
from tests.keyspaces.history import HALL, LARGE, LONG, MALLORY, STRANGE
from tests.waiting import wait_until
from tests.worlds import KEYS, MESSAGE, ROOM, World
from worker.errors import ExitCode
from worker.store.tables import Tables

pytestmark = [pytest.mark.processes, pytest.mark.timeout(300)]
UNDER_REPAIR = (LONG, HALL)


def listed(world: World, channel: str) -> dict[str, dict[str, dict[str, int]]]:
    """Return what PubNub lists of a channel: message → type → value → count."""
    return world.emulator.truth()[channel]


async def test_a_copy_is_restored_as_it_was(restored: World, copy: Copy) -> None:
    """Every key, type and value; a key that ends has a life again."""
    for held, line in zip(await read(restored.redis), copy.lines, strict=True):
        assert (held.key, held.type, held.life) == (line.key, line.type, line.life)
        if not held.key.startswith("tally:cursor:"):
            assert json.loads(json.dumps(held.value)) == line.value


def test_a_copy_has_every_kind_of_key(copy: Copy) -> None:
    """All names that the client knows, but for a key that is deleted at once."""
    keys = {line.key for line in copy.lines}
    of_channels = {key.partition("}:")[2].partition(":")[0] for key in keys}

    names = vars(Keys()).items()
    expected = {
        key for name, key in names if name not in {"namespace", "probe", "hints", "pattern"}
    }
    assert expected <= keys
    kinds = {"counts", "actions", "removed", "who", "messages", "journal", "head"}
    assert of_channels >= kinds | {"owed", "progress", "pruned"}
    assert {line.life for line in copy.lines} > {FOR_EVER, "an hour", "a day", "a week"}


async def test_every_command_reads_it(restored: World) -> None:
    """Show, top, channels, tail, export and verify: what PubNub lists, and what is under repair."""
    shown = await document(restored, "show", STRANGE, MESSAGE)
    top = await document(restored, "top", LARGE)
    channels = await document(restored, "channels")
    told = await restored.run_command("tail", ROOM, "--json", "--since", "begin", "--exit-at-end")
    explained = await restored.run_command("explain", ROOM, MESSAGE)
    kept = await document(restored, "users", "export", "ana")
    verified = await document(restored, "verify")

    assert shown["counts"] == listed(restored, STRANGE)[MESSAGE]
    assert top["messages"][0]["count"] == 134
    assert {it["channel"] for it in channels["channels"] if it["owed"]} == set(UNDER_REPAIR)
    assert told.code == explained.code == ExitCode.DONE
    assert newest_counts(told.out) == listed(restored, ROOM)[MESSAGE]["reaction"]
    assert {"pruned", "restored", "superseded", "early", "rebuilt"} <= set(explained.out.split())
    assert kept["users"]["ana"]["actions"]
    assert verified["exact"]


def newest_counts(lines: str) -> dict[str, int]:
    """Return value → count of a message, from all changes."""
    changes = map(json.loads, lines.splitlines())
    counts = {it["value"]: it["count"] for it in changes if it.get("message_timetoken") == MESSAGE}
    return {value: count for value, count in counts.items() if count}


async def document(world: World, *line: str) -> Any:
    """Return what a command prints as JSON."""
    ended = await world.run_command(*line, "--json")
    assert ended.code == ExitCode.DONE, ended
    return json.loads(ended.out)


async def test_the_client_reads_it(restored: World) -> None:
    """Counts and users are what PubNub lists, but where a repair was interrupted."""
    for channel in restored.emulator.truth().keys() - UNDER_REPAIR:
        messages = listed(restored, channel)
        page = await restored.reader.page(channel, list(messages), names=50)
        assert {name: it.counts for name, it in page.messages.items()} == messages
        assert not page.in_doubt
    assert await restored.reader.in_doubt([ROOM, *UNDER_REPAIR]) == set(UNDER_REPAIR)


async def test_a_worker_goes_on(restored: World, copy: Copy) -> None:
    """Nothing new is owed, cursors are adopted, repairs are resumed, and all ends exact."""
    tables = Tables(restored.redis, KEYS)
    backfill, look = await tables.progress.read(LONG), await tables.progress.read_look(HALL)
    assert backfill
    assert look
    assert look.next
    assert not await restored.owes_nothing()

    worker = await restored.follow(polls=3, TALLY_LOG_LEVEL="debug")
    restored.react("after", "ana")
    restored.react("after", MALLORY)
    await restored.wait_for_counts({**listed(restored, ROOM)[MESSAGE]["reaction"], "after": 1})
    await wait_until(restored.owes_nothing, what=worker.tail)
    for action in restored.state.actions(ROOM):
        if action.identity.uuid == MALLORY:
            restored.take_back(action.timetoken, MALLORY)
    await restored.settles()

    assert not worker.entries("gap"), worker.err
    starts = worker.entries("subscription_starts")
    assert starts
    assert not any(start["is_first"] for start in starts), worker.err
    resumed = {it["channel"]: it["actions"] for it in worker.entries("backfill_resumes")}
    assert resumed == {LONG: backfill.actions}
    assert await worker.stopped() == ExitCode.DONE
    verified = await restored.run_command("verify", "--json")
    assert json.loads(verified.out)["exact"], verified
