"""What an operator relies on: probes that tell the truth, and a list that changes."""

import asyncio

from tests.end_to_end.processes import ROOM, Crowd, Stage, wait_until


async def test_probes_and_health_checks_tell_the_truth(stage: Stage) -> None:
    """A worker is alive from the beginning; ready once PubNub answers and the first backfill is done.

    Where PubNub goes away later the state of its subscriptions tells. A health check ends with 0, or with 1 and why.
    """
    stage.react()
    stage.state.set_outage("server_error")
    worker = stage.start("run")
    await wait_until(lambda: worker.entries("http_listens"), what=lambda: worker.err)
    await worker.reads({"subscriptions", "backfill"})
    assert (await worker.asked("/livez"))[0] == 200

    stage.state.set_outage("server_error", ["actions"])
    await worker.reads({"backfill"})
    _, status = await worker.asked("/status")
    assert status["redis"]["owed"][ROOM].keys() == {"first_start"}

    stage.state.set_outage(None)
    await worker.reads(set())
    await stage.settles()

    (listens,) = worker.entries("http_listens")
    stage.settings["TALLY_HTTP"] = f"0.0.0.0:{listens['port']}"
    well, alive = await asyncio.gather(stage.do("healthcheck"), stage.do("healthcheck", "--live"))
    assert [(each.process.returncode, each.out) for each in (well, alive)] == [(0, "ok\n")] * 2

    async def is_unreachable() -> bool:
        (told,) = (await worker.asked("/status"))[1]["subscriptions"]
        return bool(told["state"] == "unreachable")

    stage.state.set_outage("server_error")
    await wait_until(is_unreachable, what=lambda: worker.err)
    assert (await worker.asked("/livez"))[0] == 200
    assert await worker.metric('tally_subscriptions{state="unreachable"}') == 1

    await worker.killed()
    dead = await stage.do("healthcheck")
    assert (dead.process.returncode, dead.out[:17]) == (1, "no worker answers")


async def test_the_list_changes_under_load(stage: Stage) -> None:
    """No event is lost: neither of who stays, nor of who comes; who goes is counted no more.

    A list that cannot be read changes nothing, and it is said what is wrong with it; an empty one is no list.
    """
    listed = stage.folder / "channels"
    listed.write_text("room\nhall\n")
    crowd = Crowd(stage.state, seed=5, channels=("room", "hall"))
    worker = await stage.follow(
        TALLY_CHANNELS=None, TALLY_CHANNELS_FILE=str(listed), TALLY_SETTLE_SECONDS="1"
    )

    async def hangs_up(event: str) -> None:
        """Ask it to read its list again, and wait until it says that it has, or could not."""
        already = len(worker.entries(event))
        worker.hang_up()
        await wait_until(
            lambda: len(worker.entries(event)) > already, what=lambda: worker.err[-3000:]
        )

    async with crowd.acting(stage.emulator, per_second=200):
        for wrong in ("room\na b\n", "", "# nobody\n"):
            listed.write_text(wrong)
            await hangs_up("channels_not_reloaded")
        listed.unlink()
        await hangs_up("channels_not_reloaded")
        for number, channels in enumerate(["room hall attic", "room attic", "hall room"], 1):
            await crowd.has_acted(40)
            stage.react(uuid=f"user-{number}", channel="attic")
            listed.write_text("\n".join(channels.split()))
            await hangs_up("channels_reloaded")
        await crowd.has_acted(40)

    await stage.settles()
    assert "line 2" in worker.entries("channels_not_reloaded")[0]["reason"]
    changes = [(each["added"], each["removed"]) for each in worker.entries("channels_reloaded")]
    assert changes == [(1, 0), (0, 1), (1, 1)]
    assert await worker.metric('tally_reloads_total{result="done"}') == 3
    assert await worker.stopped() == 0
