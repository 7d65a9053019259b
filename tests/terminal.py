"""A command in a pseudo-terminal, driven as a person drives it."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time

ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[()][A-Z0-9]|\r")


def _take_terminal() -> None:
    """Own the terminal, with Ctrl-C as a person's: what runs in the background ignores it."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Terminal:
    """`emend` with these arguments, in a terminal of that many columns.

    Attributes:
        text: All that was shown so far, without colours and moves of the cursor.
    """

    def __init__(self, *arguments: object, columns: int = 100) -> None:
        self._own, other = pty.openpty()
        fcntl.ioctl(other, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
        environment = {**os.environ, "TERM": "xterm"}
        environment.pop("COLUMNS", None)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "emend", *map(str, arguments)],
            stdin=other, stdout=other, stderr=other, env=environment, start_new_session=True,
            preexec_fn=_take_terminal,
        )  # fmt: skip
        os.close(other)
        self.text = ""
        self._seen = 0

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        os.close(self._own)

    def send(self, text: str) -> None:
        """Type; "\\x04" is Ctrl-D."""
        os.write(self._own, text.encode())

    def expect(self, pattern: str, seconds: float = 600) -> str:
        """Wait until a pattern is shown after what was expected last, and give all since then."""
        part = self._wait(pattern, seconds)
        assert part is not None, f"{pattern!r} is not shown within {seconds} s: {self._unseen()}"
        return part

    def interrupt(self, pattern: str, seconds: float = 600) -> str:
        """Press Ctrl-C until a pattern is shown, as a person does.

        One that comes after the prompt is shown and before readline waits for a key is noticed
        only with the next (CPython: the signal sets a flag, and the wait then begins all the same).
        """
        for _ in range(int(seconds // 5)):
            self.send("\x03")
            if (part := self._wait(pattern, 5)) is not None:
                return part
        raise AssertionError(f"{pattern!r} is not shown within {seconds} s: {self._unseen()}")

    def ends(self, seconds: float = 600) -> int:
        """Wait for the end, and give the exit status."""
        end = time.monotonic() + seconds
        while self._read(end - time.monotonic()):
            pass
        return self.process.wait(max(0, end - time.monotonic()))

    def _wait(self, pattern: str, seconds: float) -> str | None:
        end = time.monotonic() + seconds
        while not (found := re.search(pattern, self.text[self._seen :], re.DOTALL)):
            if (left := end - time.monotonic()) <= 0:
                return None
            assert self._read(left), f"{pattern!r} is not shown at the end: {self._unseen()}"
        part = self.text[self._seen : self._seen + found.end()]
        self._seen += found.end()
        return part

    def _read(self, seconds: float) -> bool:
        """Take what is shown within that time; False at the end."""
        if not select.select([self._own], [], [], max(0, seconds))[0]:
            return seconds > 0
        try:
            part = os.read(self._own, 65536)
        except OSError:  # the other side is closed
            return False
        self.text += ESCAPES.sub("", part.decode(errors="replace"))
        return bool(part)

    def _unseen(self) -> str:
        return self.text[self._seen :][-2000:]
