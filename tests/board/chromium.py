"""A real browser without a window, driven through the DevTools protocol."""

import asyncio
import base64
import json
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any, Final

import pytest
from aiohttp import ClientSession, ClientWebSocketResponse, WSMsgType

from tests.waiting import wait_until

CHROMIUM: Final = shutil.which("chromium") or shutil.which("chromium-browser")
needs_chromium: Final = pytest.mark.skipif(not CHROMIUM, reason="needs chromium")
START_SECONDS: Final = 30.0
SWITCHES: Final = (
    "--headless=new",
    "--no-sandbox",  # tests may run as root, in a container
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-extensions",
    "--disable-sync",
    "--no-first-run",
    "--mute-audio",
    "--hide-scrollbars",
    "--remote-debugging-port=0",
    "--lang=en-GB",
)


class Devtools:
    """One connection to the browser, for all its pages."""

    def __init__(self, socket: ClientWebSocketResponse) -> None:
        self._socket = socket
        self._numbers = count(1)
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._listeners: dict[str, Callable[[str, dict[str, Any]], None]] = {}

    def listen(self, session: str, listener: Callable[[str, dict[str, Any]], None]) -> None:
        """Call this with the events of a page."""
        self._listeners[session] = listener

    async def call(self, method: str, session: str = "", **parameters: Any) -> dict[str, Any]:
        """Return the result of a command."""
        number = next(self._numbers)
        message: dict[str, Any] = {"id": number, "method": method, "params": parameters}
        if session:
            message["sessionId"] = session
        waiting = self._answers[number] = asyncio.get_running_loop().create_future()
        await self._socket.send_json(message)
        async with asyncio.timeout(START_SECONDS):
            answer = await waiting
        del self._answers[number]
        assert "error" not in answer, (method, answer)
        result: dict[str, Any] = answer["result"]
        return result

    async def run(self) -> None:
        """Receive until the browser ends."""
        async for message in self._socket:
            if message.type is not WSMsgType.TEXT:
                continue
            data = json.loads(message.data)
            if "id" in data:
                answer = self._answers.get(data["id"])
                if answer and not answer.done():
                    answer.set_result(data)
            elif listener := self._listeners.get(data.get("sessionId", "")):
                listener(data["method"], data["params"])


class Page:
    """One tab."""

    def __init__(self, devtools: Devtools, session: str, target: str) -> None:
        self._devtools = devtools
        self._session = session
        self.target = target
        self.problems: list[str] = []
        """What the console says: errors, warnings, and violations of the policy."""
        self.requests: list[str] = []
        self.statuses: list[int] = []
        self.received = 0
        """Bytes of bodies."""
        devtools.listen(session, self._note)

    async def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Return the result of a command to this tab."""
        return await self._devtools.call(method, self._session, **parameters)

    def _note(self, method: str, event: dict[str, Any]) -> None:
        if method == "Runtime.exceptionThrown":
            self.problems.append(json.dumps(event["exceptionDetails"]))
        elif method == "Runtime.consoleAPICalled" and event["type"] in {"error", "warning"}:
            self.problems.append(json.dumps(event["args"]))
        elif method == "Log.entryAdded" and event["entry"]["level"] in {"error", "warning"}:
            self.problems.append(event["entry"]["text"])
        elif method == "Network.requestWillBeSent":
            self.requests.append(event["request"]["url"])
        elif method == "Network.responseReceived":
            self.statuses.append(event["response"]["status"])
        elif method == "Network.dataReceived":
            self.received += event["dataLength"]

    async def open(self, url: str) -> None:
        """Go to an address; the page may still load afterwards."""
        await self.call("Page.navigate", url=url)

    async def evaluate(self, expression: str) -> Any:
        """Return the value of an expression, or of its promise."""
        answer = await self.call(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    async def text(self, selector: str = "body") -> str:
        """Return the text that an element shows."""
        found = await self.evaluate(
            f"(node => node?.checkVisibility() ? node.innerText : '')"
            f"(document.querySelector({json.dumps(selector)}))"
        )
        return str(found)

    async def shows(self, text: str, selector: str = "body", seconds: float = 15.0) -> None:
        """Wait until an element shows a text."""

        async def is_shown() -> bool:
            return text in await self.text(selector)

        await wait_until(is_shown, seconds, what=lambda: f"{text!r} is not in {selector}")

    async def holds(self, expression: str, seconds: float = 15.0) -> None:
        """Wait until an expression is true."""

        async def is_true() -> bool:
            return bool(await self.evaluate(expression))

        await wait_until(is_true, seconds, what=lambda: expression)

    async def press(self, key: str, *, shift: bool = False) -> None:
        """Press a key, for example ``Tab``."""
        text = {"Enter": "\r"}.get(key, "")
        code = {"Tab": 9, "Enter": 13, "Escape": 27}.get(key, 0)
        event = {"key": key, "code": key, "windowsVirtualKeyCode": code, "modifiers": 8 * shift}
        kind = "keyDown" if text else "rawKeyDown"
        await self.call("Input.dispatchKeyEvent", type=kind, text=text, **event)
        await self.call("Input.dispatchKeyEvent", type="keyUp", **event)

    async def write(self, text: str) -> None:
        """Write where the focus is."""
        await self.call("Input.insertText", text=text)

    async def resize(self, width: int, height: int, scale: float = 1) -> None:
        """Give the page a size."""
        await self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=scale,
            mobile=False,
        )

    async def prefer(self, **features: str) -> None:
        """Set preferences, for example ``color_scheme="dark"``."""
        media = [
            {"name": f"prefers-{name.replace('_', '-')}", "value": value}
            for name, value in features.items()
        ]
        await self.call("Emulation.setEmulatedMedia", features=media)

    async def picture(self) -> bytes:
        """Return the page as a PNG."""
        answer = await self.call("Page.captureScreenshot", format="png")
        return base64.b64decode(answer["data"])


class Browser:
    """The tabs of one test. They share nothing with those of another test."""

    def __init__(self, devtools: Devtools) -> None:
        self.devtools = devtools
        self._context = ""

    async def close(self) -> None:
        """Close every tab."""
        if self._context:
            await self.devtools.call("Target.disposeBrowserContext", browserContextId=self._context)

    async def page(self, url: str = "", *, is_front: bool = True) -> Page:
        """Open a tab."""
        if not self._context:
            made = await self.devtools.call("Target.createBrowserContext")
            self._context = made["browserContextId"]
        created = await self.devtools.call(
            "Target.createTarget", url="about:blank", browserContextId=self._context
        )
        target = created["targetId"]
        attached = await self.devtools.call("Target.attachToTarget", targetId=target, flatten=True)
        page = Page(self.devtools, attached["sessionId"], target)
        for domain in ("Page", "Runtime", "Log", "Network"):
            await page.call(f"{domain}.enable")
        if is_front:
            await page.call("Page.bringToFront")
        if url:
            await page.open(url)
        return page


class Chromium:
    """The process of a browser, for many tests; each opens tabs of its own."""

    def __init__(self) -> None:
        assert CHROMIUM
        self._folder = tempfile.TemporaryDirectory(prefix="board-", ignore_cleanup_errors=True)
        self._profile = Path(self._folder.name)
        self._process = subprocess.Popen(
            [CHROMIUM, *SWITCHES, f"--user-data-dir={self._profile}", "about:blank"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            # Its crash reporter writes into the home of the user, and its lock into TMPDIR.
            env={
                **os.environ,
                "HOME": self._folder.name,
                "TMPDIR": self._folder.name,
                "TZ": "UTC",
            },
            start_new_session=True,
        )

    def end(self) -> None:
        """Leave neither a process nor a file."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._folder.cleanup()

    @asynccontextmanager
    async def browser(self) -> AsyncIterator[Browser]:
        """Yield a browser without tabs of others; what is opened there is closed."""
        address = self._profile / "DevToolsActivePort"
        await wait_until(
            lambda: address.exists() and len(address.read_text().split()) == 2,
            START_SECONDS,
            what=lambda: "chromium does not start",
        )
        port, path = address.read_text().split()
        url = f"ws://127.0.0.1:{port}{path}"
        async with ClientSession() as session, session.ws_connect(url, max_msg_size=0) as socket:
            browser = Browser(Devtools(socket))
            receiving = asyncio.create_task(browser.devtools.run())
            try:
                yield browser
                await browser.close()
            finally:
                receiving.cancel()
                await asyncio.wait([receiving])
