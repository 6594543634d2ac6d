"""``tally explain``: the changes of one message, and whether any is missing."""

import json
import time
from typing import Any, cast

import pytest
from redis.asyncio import Redis

from reaction_tally.errors import MalformedEntryError
from reaction_tally.journal import read_entry
from reaction_tally.keys import Keys
from tests.histories import ANA, BEN, CHANNEL, MESSAGE, added, at, pruned, removed, restored
from worker.domain.action import Added, Event, Identity, Origin
from worker.domain.position import from_seconds
from worker.reading.explain import Explanation, explanation_json, explanation_lines, trace
from worker.store.apply_script import Ttls
from worker.store.journal import PAGE, Journal
from worker.store.snapshot import read_snapshot
from worker.store.store import Store

KEYS = Keys()
HOSTILE = Identity(CHANNEL, MESSAGE, "re:act%3A 1", "a: b%20\n{c} \x1b[31m", "u: 1\n%3A ")
ELSEWHERE = Identity(CHANNEL, "1234567890", "reaction", "👍", "ana")


async def explain(redis: Redis, message: str = MESSAGE) -> Explanation:
    """Return the explanation of a message."""
    return await trace(
        Journal(redis, KEYS), CHANNEL, message, await read_snapshot(redis, KEYS, CHANNEL, message)
    )


def summary(explanation: Explanation) -> list[tuple[str, str, str, str, int]]:
    """Return origin, event, outcome, user and count of each change."""
    return [
        (e.entry.origin, e.change.event, e.change.outcome, e.change.uuid, e.change.count)
        for e in explanation.changes
    ]


async def apply(redis: Redis, origin: Origin, *events: Event) -> None:
    """Apply a batch."""
    await Store(redis, KEYS).apply_all([(CHANNEL, events)], origin)


async def test_every_change_has_its_origin_and_count(redis: Redis) -> None:
    """Oldest first. Neither other messages nor events that changed nothing are there."""
    await apply(redis, Origin.BACKFILL, added(1), added(1), added(1, ELSEWHERE))
    await apply(redis, Origin.LIVE, removed(3, BEN), added(2), added(4, BEN))
    await apply(redis, Origin.RECONCILE, pruned(2))
    await apply(redis, Origin.LIVE, removed(2))
    await apply(redis, Origin.RECONCILE, restored(2, 2))

    explanation = await explain(redis)

    assert summary(explanation) == [
        ("backfill", "added", "applied", "ana", 1),
        ("live", "removed", "early", "ben", 1),
        ("live", "added", "applied", "ben", 2),
        ("live", "added", "superseded", "ana", 2),
        ("reconcile", "pruned", "applied", "ana", 1),
        ("live", "removed", "early", "ana", 1),
        ("reconcile", "restored", "applied", "ana", 2),
    ]
    assert explanation.is_whole
    assert explanation.present.counts == {"reaction": {"👍": 2}}
    assert explanation.present.users == {"reaction": {"👍": {"ana": at(2), "ben": at(4)}}}


async def test_each_change_has_its_time(redis: Redis) -> None:
    """By Redis's clock, from the entry's id; the oldest is how far the journal reaches back."""
    before = int(time.time() * 1000) - 1000
    await apply(redis, Origin.LIVE, added(1))
    await apply(redis, Origin.LIVE, removed(1))

    explanation = await explain(redis)
    times = [change.entry.milliseconds for change in explanation.changes]

    assert before <= times[0] <= times[1] <= before + 60_000
    assert explanation.reaches_back_to == times[0]
    changes = json.loads(json.dumps(explanation_json(explanation)))["changes"]
    assert [change["action_timetoken"] for change in changes] == [at(1), at(1)]


async def test_hostile_text_comes_back_as_it_was(redis: Redis) -> None:
    """Type, value and user may have any character; no line for people has one a terminal obeys."""
    await apply(redis, Origin.LIVE, added(1, HOSTILE))

    explanation = await explain(redis)
    change, lines = explanation.changes[0].change, list(explanation_lines(explanation))

    assert (change.type, change.value, change.uuid) == (HOSTILE.type, HOSTILE.value, HOSTILE.uuid)
    assert explanation.present.users == {HOSTILE.type: {HOSTILE.value: {HOSTILE.uuid: at(1)}}}
    assert len(lines) == 3
    assert not any(character in line for line in lines for character in "\n\x1b")
    assert json.loads(json.dumps(explanation_json(explanation)))["counts"] == {
        HOSTILE.type: {HOSTILE.value: 1}
    }


async def test_a_trimmed_journal_says_so(redis: Redis) -> None:
    """With the time that the rest reaches back to, or with the words that nothing is left."""
    for place in (1, 2):
        await apply(redis, Origin.LIVE, added(place))
    commands, journal = cast("Any", redis), KEYS.journal(CHANNEL)

    await commands.xtrim(journal, maxlen=1, approximate=False)
    trimmed = await explain(redis)
    await redis.delete(journal)
    empty = await explain(redis)

    assert summary(trimmed) == [("live", "added", "superseded", "ana", 1)]
    assert not trimmed.is_whole
    assert "The journal reaches back to 20" in list(explanation_lines(trimmed))[-1]
    assert (summary(empty), empty.is_whole, empty.reaches_back_to) == ([], False, None)
    assert list(explanation_lines(empty)) == [
        "Now: reaction  👍  1: ana",
        (
            "The journal of this channel is empty: its entries were trimmed, "
            "named a forgotten user, or were never written."
        ),
    ]


async def test_an_entry_missing_in_the_middle_is_noticed(redis: Redis) -> None:
    """Each entry names the one before, so a hole shows even where both ends are there."""
    for place in (1, 2, 3):
        await apply(redis, Origin.LIVE, added(place))
    commands, journal = cast("Any", redis), KEYS.journal(CHANNEL)
    _, (second, _), _ = await commands.xrange(journal)

    await commands.xdel(journal, second)

    explanation = await explain(redis)
    assert len(explanation.changes) == 2
    assert not explanation.is_whole


async def test_an_expired_message_shows_its_end(redis: Redis) -> None:
    """The sweep's change has no user; nothing is counted after it."""
    old = from_seconds(time.time() - 200)
    event = Added(Identity(CHANNEL, old, "reaction", "👍", "ana"), old, old)
    await apply(redis, Origin.LIVE, event)
    await Store(redis, KEYS, Ttls(retention_seconds=100)).sweep(CHANNEL)

    explanation = await explain(redis, old)

    assert summary(explanation) == [
        ("live", "added", "applied", "ana", 1),
        ("sweep", "expired", "applied", "", 0),
    ]
    assert explanation.is_whole
    lines = list(explanation_lines(explanation))
    assert lines[1].endswith("  sweep  expired applied  → 0")
    assert lines[2:] == [
        "Now: no reactions.",
        "The journal holds every change since the channel was first counted.",
    ]


async def test_a_rebuilt_count_is_shown(redis: Redis) -> None:
    """It was wrong, and no user changed it."""
    await apply(redis, Origin.LIVE, added(1))
    await cast("Any", redis).hset(KEYS.counts(CHANNEL, MESSAGE), "reaction:👍", 9)
    await Store(redis, KEYS).rebuild(CHANNEL, [MESSAGE])

    explanation = await explain(redis)

    assert summary(explanation)[1:] == [("reconcile", "rebuilt", "applied", "", 1)]
    assert explanation.is_whole
    lines = list(explanation_lines(explanation))
    assert lines[1].endswith("  reconcile  rebuilt applied  reaction  👍  → 1")
    assert lines[2] == "Now: reaction  👍  1: ana"


async def test_a_message_without_reactions_has_no_changes(redis: Redis) -> None:
    """Nor has a channel that no worker follows. Nothing is missing there."""
    explanation = await explain(redis)

    assert (explanation.changes, explanation.is_whole, explanation.present.counts) == ((), True, {})


async def test_a_long_journal_is_read_in_parts(redis: Redis) -> None:
    """Of more entries than one page, each is there once, in order."""
    commands, journal = cast("Any", redis), KEYS.journal(CHANNEL)
    position = "0-0"
    for number in range(1, 2 * PAGE + 1):
        field = f"added applied {at(number)} {number} {MESSAGE} reaction:👍:user-{number}"
        position = await commands.xadd(
            journal, {"after": position, "origin": "live", "0": field}, id=f"{number}-0"
        )
    await redis.set(KEYS.head(CHANNEL), position)
    await commands.hset(KEYS.counts(CHANNEL, MESSAGE), "reaction:👍", 2 * PAGE)
    await redis.expire(journal, 60)

    explanation = await explain(redis)

    assert [change.change.count for change in explanation.changes] == list(range(1, 2 * PAGE + 1))
    assert explanation.is_whole


async def test_changes_of_one_batch_keep_their_order(redis: Redis) -> None:
    """The tenth after the ninth, not after the first."""
    await apply(
        redis,
        Origin.LIVE,
        *(added(1, Identity(CHANNEL, MESSAGE, "reaction", "👍", f"u{n}")) for n in range(12)),
    )

    assert [change.change.count for change in (await explain(redis)).changes] == list(range(1, 13))


async def test_a_change_after_the_snapshot_is_left_out(redis: Redis) -> None:
    """The explanation ends where the counts were read."""
    await apply(redis, Origin.LIVE, added(1))
    present = await read_snapshot(redis, KEYS, CHANNEL, MESSAGE)
    await apply(redis, Origin.LIVE, added(1, BEN))

    explanation = await trace(Journal(redis, KEYS), CHANNEL, MESSAGE, present)

    assert [change.change.uuid for change in explanation.changes] == [ANA.uuid]
    assert explanation.is_whole


@pytest.mark.parametrize(
    "fields",
    [
        {"origin": "live"},
        {"after": "0-0"},
        {"after": "0-0", "origin": "live", "0": "added applied 1"},
        {"after": "0-0", "origin": "live", "0": "added applied 1 one 1 a:b:c"},
        {"after": "0-0", "origin": "live", "0": "added applied 1 1 1 no-field"},
        {"after": "0-0", "origin": "live", "what": "added applied 1 1 1 a:b:c"},
    ],
    ids=str,
)
def test_a_foreign_entry_is_refused(fields: dict[str, str]) -> None:
    """With a sentence that names it."""
    with pytest.raises(MalformedEntryError, match="entry 5-0 is not of a kind"):
        read_entry("5-0", fields)
