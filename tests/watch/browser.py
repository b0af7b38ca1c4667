"""A headless Chromium driven through the pipe of its DevTools: nothing to install, no open port."""

import base64
import contextlib
import fcntl
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PROGRAM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
_SWITCHES = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars",
    "--no-first-run", "--disable-extensions", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--remote-debugging-pipe", "about:blank",
)  # fmt: skip


class Page:
    """One page of the browser."""

    def __init__(self, to: int, of: int) -> None:
        self._to, self._of = to, of
        self._last, self._buffer = 0, b""
        self._session: str | None = None
        self.requests: list[str] = []
        self.complaints: list[str] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, timeout: float = 30.0, **parameters: Any) -> dict[str, Any]:
        """Does something and returns its result, noting what happens meanwhile."""
        self._last += 1
        message: dict[str, Any] = {"id": self._last, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        end = time.monotonic() + timeout
        while True:
            answer = self._receive(end, method)
            if answer.get("id") == self._last:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return answer["result"]
            self._note(answer)

    def _receive(self, end: float, method: str) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            left = end - time.monotonic()
            ready, _, _ = select.select([self._of], [], [], max(left, 0))
            if not ready:
                raise TimeoutError(f"Chromium did not answer {method}")
            piece = os.read(self._of, 2**20)
            assert piece, "Chromium has ended"
            self._buffer += piece
        message, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(message)

    def _note(self, event: dict[str, Any]) -> None:
        kind, told = event.get("method"), event.get("params", {})
        if kind == "Network.requestWillBeSent":
            self.requests.append(told["request"]["url"])
        elif kind == "Runtime.exceptionThrown":
            details = told["exceptionDetails"]
            said = details.get("exception", {}).get("description", details.get("text"))
            self.complaints.append(said)
        elif kind == "Log.entryAdded" and told["entry"]["level"] == "error":
            self.complaints.append(f"{told['entry']['text']} {told['entry'].get('url', '')}")

    def open(self, url: str, width: int = 1280, height: int = 900, dark: bool = False) -> None:
        """Opens an address in a window of a size, light or dark."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height,
                  deviceScaleFactor=1, mobile=False)  # fmt: skip
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.call("Page.navigate", url=url)

    def ask(self, words: str) -> Any:
        """Returns the value of an expression of JavaScript in the page."""
        found = self.call(
            "Runtime.evaluate", expression=words, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def wait(self, words: str, seconds: float = 20.0) -> Any:
        """Returns the value of an expression as soon as it is true."""
        end = time.monotonic() + seconds
        while True:
            value = self.ask(words)
            if value:
                return value
            assert time.monotonic() < end, f"not true after {seconds} s: {words}\n{self.text()}"
            time.sleep(0.1)

    def text(self) -> str:
        """Returns what the page shows."""
        return self.ask("document.body.innerText")

    def picture(self, path: Path, whole: bool = True) -> None:
        """Writes a PNG of the page, for people to look at."""
        data = self.call("Page.captureScreenshot", captureBeyondViewport=whole)["data"]
        path.write_bytes(base64.b64decode(data))


@contextlib.contextmanager
def browse(profile: Path) -> Iterator[Page]:
    """Starts Chromium with a profile of its own, and ends it."""
    assert PROGRAM is not None
    ours, theirs = os.pipe(), os.pipe()
    # Chromium reads from 3 and writes to 4, whatever the numbers here.
    ends = [fcntl.fcntl(end, fcntl.F_DUPFD, 50) for end in (ours[0], theirs[1])]

    def take_ends() -> None:
        os.dup2(ends[0], 3)
        os.dup2(ends[1], 4)

    process = subprocess.Popen(
        [PROGRAM, f"--user-data-dir={profile}", *_SWITCHES],
        preexec_fn=take_ends, pass_fds=(3, 4), stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    for end in (ours[0], theirs[1], *ends):
        os.close(end)
    try:
        yield Page(ours[1], theirs[0])
    finally:
        process.kill()
        process.wait(10)
        os.close(ours[1])
        os.close(theirs[0])
