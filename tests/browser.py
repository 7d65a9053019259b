"""A headless Chromium for tests of pages: what it says, what it asks the network for, what shows.

Speaks Chromium's own protocol through a pipe, so that nothing but the browser itself is needed.
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import shutil
import signal
import tempfile
import time
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--no-first-run", "--remote-debugging-pipe"),
)
SECONDS = 60


def find_browser() -> str | None:
    """The path of a Chromium, if there is one."""
    return next((path for path in map(shutil.which, NAMES) if path), None)


class Browser:
    """One page in a browser of its own; use it in a ``with``.

    Attributes:
        requests: What was asked for, by address.
        complaints: What the console said, and errors that nothing caught.
    """

    def __init__(self, path: str, width: int = 1100, height: int = 800) -> None:
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self._events: list[dict[str, Any]] = []
        self._path, self._size, self._count, self._rest = path, (width, height), 0, b""
        self._session: str | None = None

    def __enter__(self) -> Browser:
        self._profile = tempfile.mkdtemp(prefix="emend-browser-")
        theirs, self._write = (_high(end) for end in os.pipe())
        self._read, ours = (_high(end) for end in os.pipe())
        flags = [*FLAGS, f"--user-data-dir={self._profile}", "about:blank"]
        flags.insert(0, "--window-size={},{}".format(*self._size))
        actions = [
            (os.POSIX_SPAWN_DUP2, theirs, 3),
            (os.POSIX_SPAWN_DUP2, ours, 4),
            (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
            (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
        ]
        arguments = [self._path, *flags]
        self._process = os.posix_spawn(
            self._path, arguments, os.environ, file_actions=actions, setpgroup=0
        )
        os.close(theirs)
        os.close(ours)
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        attached = self.send("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.send(f"{domain}.enable")
        return self

    def __exit__(self, *_: object) -> None:
        os.killpg(self._process, signal.SIGKILL)
        os.waitpid(self._process, 0)
        os.close(self._write)
        os.close(self._read)
        shutil.rmtree(self._profile, ignore_errors=True)

    def open(self, page: Path | str) -> None:
        """Show a file or an address, and wait until it is loaded."""
        self._events.clear()
        self.send("Page.navigate", url=page if isinstance(page, str) else page.resolve().as_uri())
        while not any(event["method"] == "Page.loadEventFired" for event in self._events):
            self._hear()
        self.evaluate("new Promise(done => setTimeout(done, 200))")

    def evaluate(self, expression: str) -> Any:
        """What a JavaScript expression is, in the page."""
        given = {"expression": expression, "awaitPromise": True, "returnByValue": True}
        answer = self.send("Runtime.evaluate", **given)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def place(self, selector: str) -> tuple[float, float]:
        """The middle of the first element that a selector finds, in pixels of the window."""
        box = self.evaluate(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)});"
            "e.scrollIntoView({block: 'center'}); const b = e.getBoundingClientRect();"
            "return [b.x + b.width / 2, b.y + b.height / 2]; })()"
        )
        return box[0], box[1]

    def mouse(self, selector: str, *, click: bool = False) -> None:
        """Point at the first element that a selector finds, or click it."""
        x, y = self.place(selector)
        self.send("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
        for kind in ("mousePressed", "mouseReleased") if click else ():
            button = {"type": kind, "button": "left", "clickCount": 1}
            self.send("Input.dispatchMouseEvent", x=x, y=y, **button)

    def write(self, selector: str, text: str) -> None:
        """Put the focus on a field, and type a text in place of what it holds."""
        found = f"document.querySelector({json.dumps(selector)})"
        self.evaluate(f"{found}.focus(); {found}.select()")
        self.type(text)

    def type(self, text: str) -> None:
        """Type a text where the focus is."""
        self.send("Input.insertText", text=text)

    def key(self, name: str) -> None:
        """Press a key: "Tab" or "Enter"."""
        code = {"Tab": 9, "Enter": 13}[name]
        more = {"text": "\r"} if name == "Enter" else {}
        for kind in ("keyDown", "keyUp"):
            key = {"type": kind, "key": name, "code": name, "windowsVirtualKeyCode": code}
            self.send("Input.dispatchKeyEvent", **key, **(more if kind == "keyDown" else {}))

    def wait_for(self, condition: str) -> Any:
        """Wait until a JavaScript expression holds; return what it is."""
        end = time.monotonic() + SECONDS
        while not (found := self.evaluate(condition)):
            assert time.monotonic() < end, f"{condition} does not hold: {self.text()}"
            time.sleep(0.1)
        return found

    def text(self) -> str:
        """What the page shows as text."""
        return self.evaluate("document.body.innerText")

    def style(self, selector: str, name: str) -> str:
        """The computed style of the first element that a selector finds."""
        element = f"document.querySelector({json.dumps(selector)})"
        return self.evaluate(f"getComputedStyle({element}).getPropertyValue({json.dumps(name)})")

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Ask the browser for something, and wait for its answer."""
        self._count += 1
        message = {"id": self._count, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            heard = self._hear()
            if heard.get("id") == self._count:
                assert "error" not in heard, heard["error"]
                return heard["result"]

    def _hear(self) -> dict[str, Any]:
        end = time.monotonic() + SECONDS
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._read], [], [], max(0.0, end - time.monotonic()))
            chunk = os.read(self._read, 1 << 16) if ready else b""
            assert chunk, "the browser says nothing"
            self._rest += chunk
        line, self._rest = self._rest.split(b"\0", 1)
        heard = json.loads(line)
        if "method" in heard:
            self._events.append(heard)
            self._note(heard["method"], heard["params"])
        return heard

    def _note(self, method: str, said: dict[str, Any]) -> None:
        if method == "Network.requestWillBeSent":
            self.requests.append(said["request"]["url"])
        if method == "Runtime.consoleAPICalled":
            self.complaints.append(" ".join(str(one.get("value")) for one in said["args"]))
        if method == "Runtime.exceptionThrown":
            self.complaints.append(said["exceptionDetails"]["text"])
        if method == "Log.entryAdded":
            self.complaints.append(said["entry"]["text"])


def _high(descriptor: int) -> int:
    """The same pipe by a number that is neither 3 nor 4, which the browser has its own by."""
    number = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 10)
    os.close(descriptor)
    return number
