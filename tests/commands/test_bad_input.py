"""Bad input is reported in a sentence, stops nothing else, and loses no other event."""

import json
from typing import Any

import pytest

from tests.bench.commands import commands, following
from tests.bench.in_process import APPLY_WAIT_SECONDS, Ended, Running
from tests.end_to_end.processes import KEY, MESSAGE, ROOM, Stage, wait_until
from tests.end_to_end.test_bad_input import event
from tests.redis_server import free_port
from worker.emulator import OUTAGE_KINDS, Emulator
from worker.emulator.cache import Message
from worker.errors import ExitCode, RedisUnfitError

UNSET = None


def said(ended: Ended | Running) -> str:
    """Return all output of a command; it must have no traceback."""
    assert "Traceback" not in ended.out + ended.err, ended.err
    return ended.out + ended.err


async def logged(worker: Running, event: str, times: int = 1) -> list[dict[str, Any]]:
    """Wait until a worker has logged so many entries of that name; return them."""
    await wait_until(
        lambda: len(worker.entries(event)) >= times,
        APPLY_WAIT_SECONDS,
        what=lambda: worker.err[-3000:],
    )
    return worker.entries(event)


async def test_a_settings_file_must_be_text(stage: Stage) -> None:
    """A .env in another encoding is refused by its name. A correct one is read."""
    (stage.folder / ".env").write_bytes(b"TALLY_CHANNELS=caf\xe9\n")
    wrong = await commands(stage).do("run", TALLY_CHANNELS=UNSET)
    (stage.folder / ".env").write_text("TALLY_CHANNELS=café\n", encoding="utf-8")
    async with following(stage, TALLY_CHANNELS=UNSET):
        stage.react(channel="café")
        await stage.settles()

    assert wrong.code == 2
    assert "it is not UTF-8 text. (.env: " in said(wrong)


@pytest.mark.parametrize(
    ("field", "value", "sentence"),
    [
        ("schema", "9", "holds schema 9; this worker writes schema 1"),
        (
            "subscribe_key",
            "sub-c-other",
            "another keyset (a key of 11 characters, not a key of 10 characters)",
        ),
        ("types", "only like", "counts only like; this worker is set to count all types but"),
    ],
)
async def test_a_foreign_namespace_is_left_alone(
    stage: Stage, field: str, value: str, sentence: str
) -> None:
    """Exit 4, with its owner and what to do. Nothing is written there."""
    await stage.redis.hset("tally:meta", field, value)

    refused = await commands(stage).do("backfill")
    with pytest.raises(RedisUnfitError) as ended:
        async with commands(stage).worker() as worker:
            await wait_until(worker.work.done)

    assert refused.code == ended.value.exit_code == ExitCode.REDIS_UNFIT
    for text in (said(refused), said(worker), str(ended.value)):
        assert sentence in text
        assert "TALLY_NAMESPACE" in text
    assert await stage.redis.keys() == ["tally:meta"]


async def test_an_unreachable_pubnub_is_logged_once(stage: Stage) -> None:
    """A worker tries again, and logs the failure once a minute, and its end.

    ``tally doctor`` ends with 3.
    """
    port = free_port()
    stage.settings["PUBNUB_ORIGIN"] = f"127.0.0.1:{port}"
    doctor = await commands(stage).do("doctor")
    async with commands(stage).worker() as worker:
        await logged(worker, "pubnub_unreachable")
        async with Emulator(port=port, subscribe_key=KEY):
            (over,) = await logged(worker, "pubnub_answers_again")
            (warning,) = worker.entries("pubnub_unreachable")  # before the second outage

    assert "no connection" in warning["reason"]
    assert over["failures"] >= 1
    assert doctor.code == ExitCode.PUBNUB_REFUSED
    assert "BAD  PubNub: PubNub, time: no connection." in said(doctor)


async def test_every_outage_is_waited_out(stage: Stage) -> None:
    """The worker polls again from the same cursor, and logs one failure."""
    async with following(stage) as worker:
        for number, kind in enumerate(OUTAGE_KINDS, 1):
            stage.state.set_outage(kind)
            await logged(worker, "pubnub_unreachable", number)
            stage.react(uuid=kind)
            stage.state.set_outage(None)

            await stage.settles()
            assert len(await logged(worker, "pubnub_answers_again", number)) == number, kind
            assert len(worker.entries("pubnub_unreachable")) == number, kind
    said(worker)


async def test_a_refused_channel_leaves_others_alone(stage: Stage) -> None:
    """One of three gets 403. Only that one is owed a repair."""
    stage.state.refuse(["hall"])
    async with following(stage, TALLY_CHANNELS="room,hall,yard") as worker:
        for channel in ("room", "yard", "hall"):
            stage.react(channel=channel)
        await wait_until(
            lambda: stage.redis.exists(f"tally:{{yard}}:counts:{MESSAGE}"), what=lambda: worker.err
        )

        assert "forbidden" in await stage.owed("hall")
        assert "forbidden" not in await stage.owed("room") | await stage.owed("yard")
        assert worker.entries("pubnub_refused")[0]["names"] == ["hall"]
        assert set(await stage.tallies()) == {"room", "yard"}
    said(worker)


async def test_other_kinds_of_message_are_skipped(stage: Stage) -> None:
    """Messages, signals, files, objects and unknown kinds are neither counted nor quarantined."""
    async with following(stage):
        for message in (
            {},
            event(e=...),
            event(e=0),
            event(e=1),
            event(e=2),
            event(e=4, d={}),
            event(e=99),
            event(e="x"),
        ):
            stage.state.inject(ROOM, message)
        stage.state.inject(ROOM, event(e=[], c=f"{ROOM}-pnpres", d={"action": "join"}))
        stage.react()

        await stage.settles()
        assert await stage.quarantine() == []


async def test_unusual_events_are_counted(stage: Stage) -> None:
    """Kinds are strings, timetokens are numbers, `p` is missing. No digit is lost."""
    exact = 17_600_000_002_020_753
    unusual = [
        event(e="3", i="one"),
        event(i="two", data={"actionTimetoken": exact, "messageTimetoken": int(MESSAGE)}),
        event(i="three", p=...),
        event(i="four", p={"t": "soon"}),
        event(i="nobody", data={"uuid": "five"}),
    ]

    async def are_five() -> bool:
        return await stage.tallies() == {ROOM: {MESSAGE: {"reaction": {"poison": 5}}}}

    async with following(stage) as worker:
        for message in unusual:
            stage.state.inject(ROOM, message)
        await wait_until(are_five, what=lambda: worker.err)

    actions = await stage.redis.hgetall(f"tally:{{{ROOM}}}:actions:{MESSAGE}")
    assert actions["reaction:poison:two"] == str(exact)
    assert set(actions) == {
        f"reaction:poison:{uuid}" for uuid in ("one", "two", "three", "four", "five")
    }
    assert await stage.quarantine() == []


async def test_hostile_names_are_counted_faithfully(stage: Stage) -> None:
    """Channel, type, value and user come back unchanged, and no terminal obeys them."""
    hostile = (
        ":",
        "%",
        "%3A",
        "{}",
        "}{",
        "a:b:c",
        "\n",
        "\x1b[31m",
        "👨‍👩‍👧",
        "\u202e",
        "'; --",
        "\x00",
        "",
    )
    async with following(
        stage, TALLY_CHANNELS="{a}%,}{,👍,room,room-pnpres", TALLY_LOG_LEVEL="debug"
    ) as worker:
        for channel in ("{a}%", "}{", "👍", ROOM):
            for text in hostile:
                stage.state.add(channel, MESSAGE, text or "empty", text, text or "empty")
        await stage.settles()
    tally = commands(stage)
    shown = await tally.do("show", "{a}%", MESSAGE)
    as_json = await tally.do("show", "{a}%", MESSAGE, "--json")

    assert json.loads(as_json.out)["counts"] == stage.emulator.truth()["{a}%"][MESSAGE]
    assert "\x1b" not in said(shown) + said(worker)
    assert "\\x1b[31m  \\x1b[31m  1" in shown.out


async def test_hostile_chat_delays_no_reaction(stage: Stage) -> None:
    """A chat message may have 5,000 digits, deep brackets, or bytes that are no text."""
    depths = (5_000, *range(900, 1_000, 3))
    nested = ["[" * depth + "]" * depth for depth in depths]
    hostile = ["9" * 5_000, "NaN", '"\xff"', *nested, '{"a":' * 900 + "1" + "}" * 900]
    async with following(stage) as worker:
        for payload in hostile:
            for kind in (0, 3):  # as a message, and as a message action
                text = json.dumps(event(e=kind, d="HERE")).replace('"HERE"', payload)
                message = Message(
                    stage.state.stream.next_position(), text.encode("latin-1"), verbatim=True
                )
                stage.state.stream.deliver(ROOM, message)  # what `inject` would refuse
            stage.react(uuid=payload[:5] + str(len(payload)))
            await stage.settles()

        assert len(await stage.quarantine()) == len(hostile)
        assert not worker.entries("pubnub_unreachable")
    said(worker)
