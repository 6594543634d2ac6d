"""The board in a real browser: what people see, and what they can do."""

import json
import signal
from pathlib import Path
from typing import Final

import pytest

from tests.board.buffering import buffering_proxy
from tests.board.chromium import Browser, Page, needs_chromium
from tests.board.serving import Serve
from tests.emulator.clients import asyncio_sdk, reaction
from tests.waiting import wait_until
from tests.worlds import MESSAGE, ROOM, World

pytestmark = [pytest.mark.processes, needs_chromium]

AXE: Final = Path(__file__).parent / "node/node_modules/axe-core/axe.min.js"
needs_axe: Final = pytest.mark.skipif(
    not AXE.exists(), reason="needs npm ci --prefix tests/board/node"
)
HURRY: Final = """
const wait = window.setTimeout;
window.setTimeout = (work, ms, ...rest) => wait(work, ms / 10, ...rest);
"""
"""Lets a page wait for a tenth of the time."""
TOKEN: Final = "a-token-of-some-length"
HOSTILE: Final = "<img src=x onerror=\"document.title='hit'\">\u202e\x1b[31m"
FOCUSED: Final = "document.activeElement?.closest('li, tr, section, dialog, form')"


@needs_chromium
async def test_it_loads_without_an_error_and_asks_nobody_else(
    serve: Serve, browser: Browser, address: str
) -> None:
    """Every request goes to the worker, and the policy of the page is never violated."""
    await serve()
    page = await browser.page(address)
    await page.shows("1 channel", "#sentence")

    origin = address.removesuffix("/board")
    assert page.problems == []
    assert page.requests
    assert all(url.startswith(f"{origin}/board") for url in page.requests)
    assert set(page.statuses) == {200}
    assert await page.evaluate("document.cookie") == ""


async def test_a_reaction_made_with_the_sdk_is_seen(
    world: World, serve: Serve, browser: Browser, address: str
) -> None:
    """It shows on its message, and moves the count in place. Both chips are the same element."""
    await serve()
    page = await browser.page(address)
    await page.shows("1 channel", "#sentence")
    origin = world.emulator.origin
    async with asyncio_sdk(origin) as ana, asyncio_sdk(origin, "ben") as ben:
        await ana.add_message_action(ROOM, reaction("🎉")).future()
        await page.holds("document.querySelectorAll('.chip').length === 1")
        await page.evaluate("window.chip = document.querySelector('.chip')")
        await ben.add_message_action(ROOM, reaction("🎉")).future()
    await page.holds("chip.isConnected && chip.querySelector('.count').textContent === '2'")
    assert await page.text(".message .channel") == ROOM


async def test_strangers_texts_stay_texts(
    world: World, serve: Serve, browser: Browser, address: str
) -> None:
    """A hostile value and a hostile user: on the list, and in the explanation."""
    await serve()
    world.react(HOSTILE, HOSTILE)
    page = await browser.page(address)
    await page.shows("onerror", ".message")
    await page.evaluate("document.querySelector('.open').click()")
    await page.shows("onerror", ".who")
    await page.shows("onerror", ".changes")

    assert "\\u{202e}\\u{1b}[31m" in await page.text(".message")
    assert await page.evaluate("document.images.length") == 0
    assert await page.evaluate("document.title") == "Tally board"
    assert page.problems == []


async def test_no_value_hides_another_one(
    world: World, serve: Serve, browser: Browser, address: str
) -> None:
    """A type may have a colon, and blanks that nobody sees have escapes."""
    await serve()
    for type, value in (("a", "b:c"), ("a:b", "c"), ("reaction", "\u3164\u00ad")):
        world.state.add(ROOM, MESSAGE, type, value, "ana")
    page = await browser.page(address)
    await page.holds("document.querySelectorAll('.chip').length === 3")
    await page.shows("\\u{3164}\\u{ad}", ".message")


async def test_a_frame_that_comes_again_gets_no_younger(
    serve: Serve, browser: Browser, address: str
) -> None:
    """Who asks for snapshots while Redis hangs sees how old they are."""
    await serve()
    page = await browser.page(address)
    is_kept = await page.evaluate(
        """
        import("/board/document.js").then(({ BoardDocument }) => {
          const known = new BoardDocument();
          known.take("snapshot", { run: "a", sequence: 1 });
          known.arrivedAt = 5;
          known.take("snapshot", { run: "a", sequence: 1 });
          return known.arrivedAt === 5;
        })
        """
    )
    assert is_kept


async def test_a_hostile_channel_stays_text(
    world: World, serve: Serve, browser: Browser, address: str
) -> None:
    """In the list, in a search, and in an address."""
    name = "<b>x&y"
    await serve(TALLY_CHANNELS=name)
    world.react(channel=name)
    page = await browser.page(address)
    await page.shows(name, ".message")
    await page.shows(name, "#channel-table")
    await page.evaluate("document.querySelector('#channel-table a').click()")
    await page.shows(f"Messages of {name}", "#messages")

    assert await page.evaluate("document.querySelectorAll('main b:not(.count)').length") == 6
    assert page.problems == []


async def test_every_view_has_an_address(
    world: World, serve: Serve, browser: Browser, address: str
) -> None:
    """What a person sees can be sent to another one: a message, a channel, a search."""
    await serve()
    world.react("🎉", "ben")
    page = await browser.page(f"{address}#/message/{ROOM}/{MESSAGE}")
    await page.shows("ben", "dialog[open] .who")
    await page.shows("added", "dialog[open] .changes")
    await page.press("Escape")
    await page.holds("!document.querySelector('dialog').open && location.hash === '#/'")

    await page.open(f"{address}#/channel/{ROOM}")
    await page.shows(f"Messages of {ROOM}")
    await page.shows("🎉", ".message")

    await page.open(f"{address}#/search/nowhere")
    await page.shows("none of 1 channel", "#channels")
    assert await page.evaluate("document.getElementById('search-text').value") == "nowhere"


async def test_a_view_of_one_channel_has_no_row_of_another(
    world: World, serve: Serve, browser: Browser, address: str
) -> None:
    """Not even the row with the focus, which is never moved. An empty view says that it is."""
    await serve()
    world.react("🎉", "ben")
    page = await browser.page(address)
    await page.shows("🎉", ".message")
    await page.evaluate("document.querySelector('.message a').focus()")
    await page.evaluate("location.hash = '#/channel/nowhere'")
    await page.shows("Nothing is counted in this channel", "#messages")
    assert await page.evaluate("document.querySelectorAll('.message').length") == 0
    assert await page.evaluate("document.activeElement.id") == "messages"


async def test_a_search_finds_channels_and_says_why_they_are_owed(
    world: World, serve: Serve, browser: Browser, address: str
) -> None:
    """Of many channels only those that are asked for are shown."""
    names = [f"room-{number}" for number in range(60)]
    await serve(TALLY_CHANNELS=",".join([*names, "news"]))
    await world.redis.hset("tally:{news}:owed", "overflow", "1796009672745")
    page = await browser.page(address)
    await page.shows("61 channels", "#sentence")
    await page.shows("Repairing", "#sentence")
    rows = "document.querySelectorAll('#channel-table tbody tr').length"
    assert await page.evaluate(rows) < 61

    await page.evaluate("document.getElementById('search-text').focus()")
    await page.write("NEWS")
    await page.holds(f"{rows} === 1")
    await page.shows("too many at once", "#channel-table .owed")
    assert await page.evaluate("location.hash") == "#/search/NEWS"


async def test_the_keyboard_reaches_everything(
    world: World, serve: Serve, browser: Browser, address: str
) -> None:
    """Tab, Enter and Escape. The focus stays on its row while other rows move around it."""
    await serve()
    other = str(int(MESSAGE) + 1)
    world.react("🎉", "ben")
    page = await browser.page(address)
    await page.shows("🎉", ".message")
    await _tab_to(page, ".open")
    focused = "document.activeElement.href.split('/').pop()"
    assert await page.evaluate(focused) == MESSAGE

    for user in ("ana", "ben", "cleo"):
        world.state.add(ROOM, other, "reaction", "👍", user)
    first = "document.querySelector('.message .open').href.split('/').pop()"
    await page.holds(f"{first} === '{other}'")
    assert await page.evaluate(focused) == MESSAGE

    await page.press("Enter")
    await page.shows("ben", "dialog[open] .who")
    await page.press("Escape")
    await page.holds(f"{focused} === '{MESSAGE}'")
    await _tab_to(page, "#search-text")


async def _tab_to(page: Page, selector: str, presses: int = 12) -> None:
    for _ in range(presses):
        await page.press("Tab")
        if await page.evaluate(f"document.activeElement.matches({json.dumps(selector)})"):
            return
    raise AssertionError(f"The keyboard does not reach {selector}.")


@needs_axe
@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_axe_finds_no_violation(
    world: World, serve: Serve, browser: Browser, address: str, scheme: str
) -> None:
    """Roles, names, contrast: of the page, of the explanation, and on a phone."""
    await serve()
    for user in ("ana", "ben", "cleo"):
        world.react("👍", user)
    page = await browser.page()
    await page.prefer(color_scheme=scheme, reduced_motion="reduce")
    await page.open(address)
    await page.shows("👍", ".message")
    await page.evaluate(AXE.read_text())
    assert await _violations(page) == []
    await page.resize(360, 780)
    assert await _violations(page) == []
    await page.evaluate("document.querySelector('.open').click()")
    await page.shows("cleo", "dialog[open] .who")
    assert await _violations(page) == []


async def _violations(page: Page) -> list[str]:
    found = await page.evaluate(
        "axe.run().then(({violations}) => violations.map((one) =>"
        " `${one.id}: ${one.nodes.map((node) => node.html + node.failureSummary)}`))"
    )
    assert isinstance(found, list)
    return found


async def test_a_phone_needs_no_sideways_scrolling(
    world: World, serve: Serve, browser: Browser, address: str
) -> None:
    """At 360 pixels, also with long names and long values."""
    name = "room." + "long-name-" * 8
    await serve(TALLY_CHANNELS=name)
    world.react("a value that is very long " * 8, "ben" * 20, name)
    page = await browser.page()
    await page.resize(360, 780)
    await page.open(address)
    await page.shows("a value", ".message")
    width = "document.documentElement.scrollWidth"
    assert await page.evaluate(width) <= 360
    await page.evaluate("document.querySelector('.open').click()")
    await page.shows("ben", "dialog[open] .who")
    dialog = "document.querySelector('dialog')"
    assert await page.evaluate(f"{dialog}.scrollWidth <= {dialog}.clientWidth")


async def test_it_survives_a_restart_of_the_worker(
    world: World, browser: Browser, address: str
) -> None:
    """A banner says so, and nothing is in order meanwhile. Then everything goes on by itself."""
    worker = await world.follow()
    world.react("🎉", "ben")
    page = await browser.page()
    await page.call("Page.addScriptToEvaluateOnNewDocument", source=HURRY)
    await page.open(address)
    await page.shows("🎉", ".message")
    worker.ask(signal.SIGTERM)
    await worker.ended()
    await page.shows("The connection is lost", "#banner")
    await page.shows("Unknown", "#sentence .state")
    assert "🎉" in await page.text(".message")

    await world.follow()
    world.react("🎉", "ana")
    await page.holds("document.getElementById('banner').hidden", 30)
    await page.holds("document.querySelector('.state').dataset.state !== 'unknown'")
    await page.holds("document.querySelector('.chip .count').textContent === '2'")


async def test_while_redis_hangs_nothing_is_called_in_order(
    world: World, serve: Serve, browser: Browser, address: str
) -> None:
    """The worker still answers, with what it read before. The sentence says why that is old."""
    await serve()
    world.react("🎉", "ben")
    page = await browser.page(address)
    await page.shows("🎉", ".message")
    await world.redis.execute_command("CLIENT", "PAUSE", 15_000, "ALL")
    state = "document.querySelector('.state').dataset.state"
    await page.holds(f"['attention', 'unknown'].includes({state})", 14)
    await page.holds(f"{state} === 'repairing'", 30)


async def test_all_tabs_share_one_stream(world: World, browser: Browser, address: str) -> None:
    """Seven tabs of one browser. All show what one of them receives."""
    worker = await world.follow()
    pages = [await browser.page(address) for _ in range(7)]
    for page in pages:
        # A tab that is not in front is hidden, and paused.
        await page.call("Emulation.setFocusEmulationEnabled", enabled=True)
    await pages[-1].shows("1 channel", "#sentence")
    world.react("🎉", "ben")
    await pages[-1].shows("🎉", ".message")
    assert await worker.metric("tally_http_streams") == 1
    await pages[0].call("Page.bringToFront")
    await pages[0].shows("🎉", ".message")
    assert await worker.metric("tally_http_streams") <= 1


async def test_a_hidden_board_costs_nothing(world: World, browser: Browser, address: str) -> None:
    """Its stream ends. It goes on when it is seen again."""
    worker = await world.follow()
    page = await browser.page(address)
    await page.shows("1 channel", "#sentence")

    async def streams() -> float:
        return await worker.metric("tally_http_streams")

    assert await streams() == 1
    await browser.page("about:blank")
    await page.holds("document.visibilityState === 'hidden'")

    async def is_paused() -> bool:
        return await streams() == 0

    await wait_until(is_paused, 15)
    world.react("🎉", "ben")
    await page.call("Page.bringToFront")
    await page.shows("🎉", ".message")


async def test_a_proxy_that_keeps_streams_back_hides_nothing(
    world: World, serve: Serve, browser: Browser, address: str
) -> None:
    """The page notices that nothing arrives, and asks for snapshots."""
    await serve()
    async with buffering_proxy(world.settings["TALLY_HTTP"]) as (proxy, behind):
        page = await browser.page()
        await page.call("Page.addScriptToEvaluateOnNewDocument", source=HURRY)
        await page.open(f"http://{behind}/board")
        await page.shows("asked for every 2 s", "#age")
        world.react("🎉", "ben")
        await page.shows("🎉", ".message")
        assert proxy.kept_back
        await page.open("about:blank")


async def test_without_locks_each_tab_asks_for_snapshots(
    world: World, serve: Serve, browser: Browser, address: str
) -> None:
    """Browsers have locks on secure origins only: not over plain HTTP from another machine."""
    await serve()
    page = await browser.page()
    source = "delete Navigator.prototype.locks"
    await page.call("Page.addScriptToEvaluateOnNewDocument", source=source)
    await page.open(address)
    await page.shows("asked for every 2 s", "#age")
    world.react("🎉", "ben")
    await page.shows("🎉", ".message")
    assert not any(url.endswith("/stream") for url in page.requests)


async def test_a_token_in_the_address_is_used_and_taken_away(
    serve: Serve, browser: Browser, address: str
) -> None:
    """It stands after the #, which no server sees. Without it the page asks for it."""
    await serve(TALLY_API_TOKEN=TOKEN)
    page = await browser.page(f"{address}#token={TOKEN}")
    await page.shows("1 channel", "#sentence")
    assert "token" not in await page.evaluate("location.href")
    assert not any(TOKEN in url.partition("#")[0] for url in page.requests)

    await page.evaluate("sessionStorage.clear()")
    await page.open("about:blank")
    await page.open(address)
    await page.shows("needs the token", "#token")
    await page.evaluate("document.getElementById('token-text').focus()")
    assert not await page.text("#banner")  # nobody has done anything wrong yet
    await page.write("another-token-of-some-length")
    await page.press("Enter")
    await page.shows("This token is wrong", "#banner")
    await page.evaluate("document.getElementById('token-text').select()")
    await page.write(TOKEN)
    await page.press("Enter")
    await page.shows("1 channel", "#sentence")
