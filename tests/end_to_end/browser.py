"""Headless Chromium, driven over its DevTools protocol; nothing is installed for it."""

import asyncio
import base64
import itertools
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest

CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--remote-debugging-port=0", "--window-size=1600,1200"),
)


def chromium() -> str:
    """The path of Chromium; without it a test fails, because a skipped check checks nothing."""
    found = next(filter(None, map(shutil.which, CHROMIUM_NAMES)), None)
    if found is None:
        pytest.fail(
            "Chromium is not installed; install it, on Debian and Ubuntu with "
            "`apt-get install chromium`, and run `make browser` again",
            pytrace=False,
        )
    return found


@dataclass
class Page:
    """One page."""

    address: str
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def open(self, url: str, *, ready: str, timeout: float = 60) -> None:
        """Go there and wait until the JavaScript expression ``ready`` is true."""
        self.call("Page.navigate", url="about:blank")  # or only the part after # would change
        self.call("Page.navigate", url=url)
        self.wait(ready, timeout=timeout)

    def wait(self, ready: str, *, timeout: float = 60) -> None:
        until = time.monotonic() + timeout
        while time.monotonic() < until:
            if self.value(ready):
                return
            time.sleep(0.3)
        raise AssertionError(f"{ready} never came true; the page says: {self.text()[:1500]}")

    def value(self, expression: str) -> Any:
        """What a JavaScript expression gives."""
        output = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        return output["result"].get("value")

    def text(self) -> str:
        return self.value("document.body.innerText")

    def screenshot(self, to: Path) -> None:
        to.write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        return asyncio.run(self._call(method, params))

    async def _call(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        number = next(self._numbers)
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(self.address, max_msg_size=0) as socket,
        ):
            await socket.send_json({"id": number, "method": method, "params": params})
            while True:
                output = await socket.receive_json(timeout=60)
                if output.get("id") == number:
                    assert "error" not in output, output
                    return output["result"]


@contextmanager
def browser(folder: Path) -> Iterator[Page]:
    """A page of a browser with a fresh profile."""
    command = [chromium(), *FLAGS, f"--user-data-dir={folder}", "about:blank"]
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        yield Page(asyncio.run(_first_page(folder / "DevToolsActivePort")))
    finally:
        process.terminate()
        process.wait(timeout=20)


async def _first_page(expected: Path) -> str:
    """The address of the page's protocol, once the browser has written its port down."""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        if expected.is_file() and expected.read_text().strip():
            port = expected.read_text().split()[0]
            async with (
                aiohttp.ClientSession() as session,
                session.get(f"http://127.0.0.1:{port}/json/list") as answer,
            ):
                pages = await answer.json(content_type=None)
            found = [page for page in pages if page["type"] == "page"]
            if found:
                return found[0]["webSocketDebuggerUrl"]
        await asyncio.sleep(0.1)
    raise AssertionError("Chromium does not start")
