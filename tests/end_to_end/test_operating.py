"""What an operator relies on: true probes, and a list of channels that changes."""

import asyncio
import signal

from tests.crowds import Crowd
from tests.waiting import wait_until
from tests.worlds import ROOM, World


async def test_probes_and_health_checks_tell_the_truth(world: World) -> None:
    """A worker is alive at once; it is ready after PubNub's answer and the first backfill.

    An outage of PubNub shows in the state of the subscriptions. A health check ends with 0, or
    with 1 and the reason.
    """
    world.react()
    world.state.set_outage("server_error")
    worker = world.start("run")
    await worker.logs("http_listens")
    await worker.fails({"subscriptions", "backfill"})
    assert (await worker.get_json("/livez"))[0] == 200

    world.state.set_outage("server_error", ["actions"])
    await worker.fails({"backfill"})
    _, status = await worker.get_json("/status")
    assert status["redis"]["owed"][ROOM].keys() == {"first_start"}

    world.state.set_outage(None)
    await worker.fails(set())
    await world.settles()

    (listens,) = worker.entries("http_listens")
    world.settings["TALLY_HTTP"] = f"0.0.0.0:{listens['port']}"
    well, alive = await asyncio.gather(world.do("healthcheck"), world.do("healthcheck", "--live"))
    assert [(child.process.returncode, child.out) for child in (well, alive)] == [(0, "ok\n")] * 2

    async def is_unreachable() -> bool:
        _, status = await worker.get_json("/status")
        (subscription,) = status["subscriptions"]
        return bool(subscription["state"] == "unreachable")

    world.state.set_outage("server_error")
    await wait_until(is_unreachable, what=worker.tail)
    assert (await worker.get_json("/livez"))[0] == 200
    assert await worker.metric('tally_subscriptions{state="unreachable"}') == 1

    await worker.killed()
    dead = await world.do("healthcheck")
    assert (dead.process.returncode, dead.out[:17]) == (1, "no worker answers")


async def test_the_list_changes_under_load(world: World) -> None:
    """Channels that stay or come lose no event; a channel that goes is counted no more.

    A list that cannot be read, or is empty, changes nothing; the log says what is wrong with it.
    """
    listed = world.folder / "channels"
    listed.write_text("room\nhall\n")
    crowd = Crowd(world.state, seed=5, channels=("room", "hall"))
    worker = await world.follow(
        TALLY_CHANNELS=None, TALLY_CHANNELS_FILE=str(listed), TALLY_SETTLE_SECONDS="1"
    )

    async def reload(event: str) -> None:
        """Ask the worker to read its list again, and wait until it has logged the event."""
        before = len(worker.entries(event))
        worker.ask(signal.SIGHUP)
        await worker.logs(event, times=before + 1)

    async with crowd.acting(world.emulator, per_second=200):
        for wrong in ("room\na b\n", "", "# nobody\n"):
            listed.write_text(wrong)
            await reload("channels_not_reloaded")
        listed.unlink()
        await reload("channels_not_reloaded")
        for number, channels in enumerate(["room hall attic", "room attic", "hall room"], 1):
            await crowd.has_acted(40)
            world.react(uuid=f"user-{number}", channel="attic")
            listed.write_text("\n".join(channels.split()))
            await reload("channels_reloaded")
        await crowd.has_acted(40)

    await world.settles()
    assert "line 2" in worker.entries("channels_not_reloaded")[0]["reason"]
    changes = [(entry["added"], entry["removed"]) for entry in worker.entries("channels_reloaded")]
    assert changes == [(1, 0), (0, 1), (1, 1)]
    assert await worker.metric('tally_reloads_total{result="done"}') == 3
    assert await worker.stopped() == 0
