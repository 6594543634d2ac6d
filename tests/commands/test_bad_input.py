"""Bad input is reported in a sentence, stops nothing else, and loses no other event."""

import json
from typing import Any

import pytest

from tests.bench.in_process import Ended, Running
from tests.redis_server import free_port
from tests.waiting import wait_until
from tests.worlds import KEY, MESSAGE, ROOM, World, envelope
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
        what=lambda: worker.err[-3000:],
    )
    return worker.entries(event)


async def test_a_settings_file_must_be_text(world: World) -> None:
    """A .env in another encoding is refused by its name. A correct one is read."""
    (world.folder / ".env").write_bytes(b"TALLY_CHANNELS=caf\xe9\n")
    wrong = await world.commands().do("run", TALLY_CHANNELS=UNSET)
    (world.folder / ".env").write_text("TALLY_CHANNELS=café\n", encoding="utf-8")
    async with world.run_worker(TALLY_CHANNELS=UNSET):
        world.react(channel="café")
        await world.settles()

    assert wrong.code == 2
    assert "it is not UTF-8 text. (.env: " in said(wrong)


@pytest.mark.parametrize(
    ("field", "value", "sentence"),
    [
        ("schema", "9", "holds schema 9; this worker writes schema 1"),
        (
            "subscribe_key",
            "sub-c-other",
            (
                "another keyset (a key of 11 characters whose SHA-256 begins 2c3cb417, "
                "not a key of 10 characters whose SHA-256 begins 65b3a290)"
            ),
        ),
        ("types", "only like", "counts only like; this worker is set to count all types but"),
    ],
)
async def test_a_foreign_namespace_is_left_alone(
    world: World, field: str, value: str, sentence: str
) -> None:
    """Exit 4, with its owner and what to do. Nothing is written there."""
    await world.redis.hset("tally:meta", field, value)

    refused = await world.commands().do("backfill")
    with pytest.raises(RedisUnfitError) as ended:
        async with world.commands().worker() as worker:
            await wait_until(worker.work.done)

    assert refused.code == ended.value.exit_code == ExitCode.REDIS_UNFIT
    for text in (said(refused), said(worker), str(ended.value)):
        assert sentence in text
        assert "TALLY_NAMESPACE" in text
    assert await world.redis.keys() == ["tally:meta"]


async def test_an_unreachable_pubnub_is_logged_once(world: World) -> None:
    """A worker tries again, and logs the failure once a minute, and its end.

    ``tally doctor`` ends with 3.
    """
    port = free_port()
    world.settings["PUBNUB_ORIGIN"] = f"127.0.0.1:{port}"
    doctor = await world.commands().do("doctor")
    async with world.commands().worker() as worker:
        await logged(worker, "pubnub_unreachable")
        async with Emulator(port=port, subscribe_key=KEY):
            (over,) = await logged(worker, "pubnub_answers_again")
            (warning,) = worker.entries("pubnub_unreachable")  # before the second outage

    assert "connection refused" in warning["reason"]
    assert over["failures"] >= 1
    assert doctor.code == ExitCode.PUBNUB_REFUSED
    said_of_pubnub = f"BAD  PubNub: PubNub at 127.0.0.1:{port} does not answer: connection refused."
    assert said_of_pubnub in said(doctor)


async def test_every_outage_is_waited_out(world: World) -> None:
    """The worker polls again from the same cursor, and logs one failure."""
    async with world.run_worker() as worker:
        for number, kind in enumerate(OUTAGE_KINDS, 1):
            world.state.set_outage(kind)
            await logged(worker, "pubnub_unreachable", number)
            world.react(uuid=kind)
            world.state.set_outage(None)

            await world.settles()
            assert len(await logged(worker, "pubnub_answers_again", number)) == number, kind
            assert len(worker.entries("pubnub_unreachable")) == number, kind
    said(worker)


async def test_a_refused_channel_leaves_others_alone(world: World) -> None:
    """One of three gets 403. Only that one is owed a repair."""
    world.state.refuse(["hall"])
    async with world.run_worker(TALLY_CHANNELS="room,hall,yard") as worker:
        for channel in ("room", "yard", "hall"):
            world.react(channel=channel)
        await wait_until(
            lambda: world.redis.exists(f"tally:{{yard}}:counts:{MESSAGE}"), what=lambda: worker.err
        )

        assert "forbidden" in await world.owed("hall")
        assert "forbidden" not in await world.owed("room") | await world.owed("yard")
        assert worker.entries("pubnub_refused")[0]["names"] == ["hall"]
        assert set(await world.tallies()) == {"room", "yard"}
    said(worker)


async def test_other_kinds_of_message_are_skipped(world: World) -> None:
    """Messages, signals, files, objects and unknown kinds are neither counted nor quarantined."""
    async with world.run_worker():
        for message in (
            {},
            envelope(e=...),
            envelope(e=0),
            envelope(e=1),
            envelope(e=2),
            envelope(e=4, d={}),
            envelope(e=99),
            envelope(e="x"),
        ):
            world.state.inject(ROOM, message)
        world.state.inject(ROOM, envelope(e=[], c=f"{ROOM}-pnpres", d={"action": "join"}))
        world.react()

        await world.settles()
        assert await world.quarantine() == []


async def test_unusual_events_are_counted(world: World) -> None:
    """Kinds are strings, timetokens are numbers, `p` is missing. No digit is lost."""
    exact = 17_600_000_002_020_753
    unusual = [
        envelope(e="3", i="one"),
        envelope(i="two", data={"actionTimetoken": exact, "messageTimetoken": int(MESSAGE)}),
        envelope(i="three", p=...),
        envelope(i="four", p={"t": "soon"}),
        envelope(i="nobody", data={"uuid": "five"}),
    ]

    async def are_five() -> bool:
        return await world.tallies() == {ROOM: {MESSAGE: {"reaction": {"poison": 5}}}}

    async with world.run_worker() as worker:
        for message in unusual:
            world.state.inject(ROOM, message)
        await wait_until(are_five, what=lambda: worker.err)

    actions = await world.redis.hgetall(f"tally:{{{ROOM}}}:actions:{MESSAGE}")
    assert actions["reaction:poison:two"] == str(exact)
    assert set(actions) == {
        f"reaction:poison:{uuid}" for uuid in ("one", "two", "three", "four", "five")
    }
    assert await world.quarantine() == []


async def test_hostile_names_are_counted_faithfully(world: World) -> None:
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
    async with world.run_worker(
        TALLY_CHANNELS="{a}%,}{,👍,room,room-pnpres", TALLY_LOG_LEVEL="debug"
    ) as worker:
        for channel in ("{a}%", "}{", "👍", ROOM):
            for text in hostile:
                world.state.add(channel, MESSAGE, text or "empty", text, text or "empty")
        await world.settles()
    tally = world.commands()
    shown = await tally.do("show", "{a}%", MESSAGE)
    as_json = await tally.do("show", "{a}%", MESSAGE, "--json")

    assert json.loads(as_json.out)["counts"] == world.emulator.truth()["{a}%"][MESSAGE]
    assert "\x1b" not in said(shown) + said(worker)
    assert "\\x1b[31m  \\x1b[31m  1" in shown.out


async def test_hostile_chat_delays_no_reaction(world: World) -> None:
    """A chat message may have 5,000 digits, deep brackets, or bytes that are no text."""
    depths = (5_000, *range(900, 1_000, 3))
    nested = ["[" * depth + "]" * depth for depth in depths]
    hostile = ["9" * 5_000, "NaN", '"\xff"', *nested, '{"a":' * 900 + "1" + "}" * 900]
    async with world.run_worker() as worker:
        for payload in hostile:
            for kind in (0, 3):  # as a message, and as a message action
                text = json.dumps(envelope(e=kind, d="HERE")).replace('"HERE"', payload)
                message = Message(
                    world.state.stream.next_position(), text.encode("latin-1"), verbatim=True
                )
                world.state.stream.deliver(ROOM, message)  # what `inject` would refuse
            world.react(uuid=payload[:5] + str(len(payload)))
            await world.settles()

        assert len(await world.quarantine()) == len(hostile)
        assert not worker.entries("pubnub_unreachable")
    said(worker)
