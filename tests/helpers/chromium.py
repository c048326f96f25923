"""A page opened in a real Chromium, by its DevTools protocol over a pipe: what it shows, how long that took.

A window of headless Chromium cannot be as narrow as a phone; the protocol's device metrics can.
"""

import json
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from helpers.browser import CHROMIUM

_PAINTED = """new Promise(done => {
  const answer = () => requestAnimationFrame(() => setTimeout(() => {
    const n = performance.getEntriesByType("navigation")[0];
    const wide = [...document.querySelectorAll("main *")].filter(e => e.getBoundingClientRect().right > innerWidth + 1
      && !e.closest(".scroll") && !e.closest("svg"));
    done({load_ms: n.loadEventEnd, width: innerWidth, scroll: document.documentElement.scrollWidth,
      outside: wide.slice(0, 5).map(e => e.outerHTML.slice(0, 80))});
  }, 0));
  document.readyState === "complete" ? answer() : addEventListener("load", answer);
})"""


@dataclass(frozen=True)
class Opened:
    """A page after it was opened.

    Attributes:
        load_ms: from the start of the navigation to the end of its load event, by the page's own clock.
        cpu_s: what the page's process computed up to then, its start included.
        complaints: what the console says: errors and warnings.
        outside: the first elements that reach beyond the window.
    """

    load_ms: float
    cpu_s: float
    width_px: int
    scroll_width_px: int
    complaints: tuple[str, ...]
    outside: tuple[str, ...]


class _Pipe:
    """The two ends of the protocol: messages of JSON, each ended by NUL."""

    def __init__(self, write: int, read: int) -> None:
        self._write, self._read, self._rest, self._id = write, read, b"", 0
        self.events: list[dict[str, Any]] = []

    def call(self, method: str, session: str = "", **params: Any) -> dict[str, Any]:
        self._id += 1
        message = {"id": self._id, "method": method, "params": params, **({"sessionId": session} if session else {})}
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while (answer := self._next()).get("id") != self._id:
            self.events.append(answer)
        assert "error" not in answer, answer
        result: dict[str, Any] = answer["result"]
        return result

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            data = os.read(self._read, 1 << 16)
            assert data, "Chromium ended"
            self._rest += data
        text, _, self._rest = self._rest.partition(b"\0")
        message: dict[str, Any] = json.loads(text)
        return message


@contextmanager
def chromium(profile: Path) -> Iterator[_Pipe]:
    """Start Chromium, and end it after the block."""
    assert CHROMIUM is not None
    their_read, write = os.pipe()
    read, their_write = os.pipe()

    def places() -> None:  # Chromium reads from 3 and writes to 4
        first, second = os.dup(their_read), os.dup(their_write)
        os.dup2(first, 3)
        os.dup2(second, 4)

    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe", "--no-first-run",
               f"--user-data-dir={profile}", "about:blank"]  # fmt: skip
    child = subprocess.Popen(command, close_fds=False, preexec_fn=places, stdout=subprocess.DEVNULL,
                             stderr=subprocess.DEVNULL)  # fmt: skip
    os.close(their_read)
    os.close(their_write)
    try:
        yield _Pipe(write, read)
    finally:
        os.close(write)
        os.close(read)
        child.terminate()
        child.wait(30)


def tab(pipe: _Pipe) -> str:
    """Open a tab, and return its session."""
    target = pipe.call("Target.createTarget", url="about:blank")["targetId"]
    session: str = pipe.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
    for domain in ("Page", "Runtime", "Log", "Performance"):
        pipe.call(f"{domain}.enable", session)
    return session


def go(pipe: _Pipe, session: str, page: Path, width_px: int) -> None:
    """Show a page from the disk in a window `width_px` wide."""
    pipe.call("Emulation.setDeviceMetricsOverride", session, width=width_px, height=900, deviceScaleFactor=1,
              mobile=width_px < 600)  # fmt: skip
    pipe.call("Page.navigate", session, url=page.as_uri())
    for _ in range(600):  # an answer of the page before is none
        if pipe.call("Runtime.evaluate", session, expression="location.href")["result"]["value"] == page.as_uri():
            break
        time.sleep(0.05)


def complaints_of(pipe: _Pipe) -> tuple[str, ...]:
    """Return what the console said up to now: errors and warnings."""
    return tuple(json.dumps(e["params"]) for e in pipe.events if _is_complaint(e))


def opened(page: Path, width_px: int, profile: Path, screenshot: Path | None = None, evaluate: str = "") -> Opened:
    """Open a page from the disk in a window `width_px` wide.

    Args:
        evaluate: JavaScript that runs after the page is there; what it returns has to be true.
    """
    import base64

    with chromium(profile) as pipe:
        session = tab(pipe)
        go(pipe, session, page, width_px)
        found = pipe.call("Runtime.evaluate", session, expression=_PAINTED, awaitPromise=True, returnByValue=True)
        metrics = pipe.call("Performance.getMetrics", session)["metrics"]
        value = found["result"]["value"]
        if evaluate:
            said = pipe.call("Runtime.evaluate", session, expression=evaluate, returnByValue=True)
            assert said["result"].get("value") is True, said
        if screenshot is not None:
            data = pipe.call("Page.captureScreenshot", session, captureBeyondViewport=True)["data"]
            screenshot.write_bytes(base64.b64decode(data))
        complaints = complaints_of(pipe)
    cpu_s = next(m["value"] for m in metrics if m["name"] == "ProcessTime")
    return Opened(value["load_ms"], cpu_s, value["width"], value["scroll"], complaints, tuple(value["outside"]))


def _is_complaint(event: dict[str, Any]) -> bool:
    params = event.get("params", {})
    if event.get("method") == "Log.entryAdded":
        return params["entry"]["level"] in ("error", "warning")
    if event.get("method") == "Runtime.consoleAPICalled":
        return params["type"] in ("error", "warning", "assert")
    return event.get("method") == "Runtime.exceptionThrown"


def shown_text(url: str, profile: Path, until: str, screenshot: Path | None = None) -> str:
    """Return the text of a page that fills itself, as soon as it holds `until`; what it holds after a minute if not."""
    import base64

    with chromium(profile) as pipe:
        session = tab(pipe)
        pipe.call(
            "Emulation.setDeviceMetricsOverride", session, width=1400, height=900, deviceScaleFactor=1, mobile=False
        )
        pipe.call("Page.enable", session)
        pipe.call("Page.navigate", session, url=url)
        text = ""
        for _ in range(240):
            found = pipe.call("Runtime.evaluate", session, expression="document.body ? document.body.innerText : ''")
            text = str(found["result"].get("value", ""))
            if until in text:
                break
            time.sleep(0.25)
        if screenshot is not None:
            screenshot.write_bytes(base64.b64decode(pipe.call("Page.captureScreenshot", session)["data"]))
    return text
