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
        """Type; "\\x03" is Ctrl-C and "\\x04" Ctrl-D."""
        os.write(self._own, text.encode())

    def expect(self, pattern: str, seconds: float = 600) -> str:
        """Wait until a pattern is shown after what was expected last, and give all since then."""
        end = time.monotonic() + seconds
        while not (found := re.search(pattern, self.text[self._seen :], re.DOTALL)):
            left = end - time.monotonic()
            assert left > 0, f"{pattern!r} is not shown within {seconds} s: {self._unseen()}"
            assert self._read(left), f"{pattern!r} is not shown at the end: {self._unseen()}"
        part = self.text[self._seen : self._seen + found.end()]
        self._seen += found.end()
        return part

    def ends(self, seconds: float = 600) -> int:
        """Wait for the end, and give the exit status."""
        while self._read(seconds):
            pass
        return self.process.wait(seconds)

    def _read(self, seconds: float) -> bool:
        if not select.select([self._own], [], [], seconds)[0]:
            return False
        try:
            part = os.read(self._own, 65536)
        except OSError:  # the other side is closed
            return False
        self.text += ESCAPES.sub("", part.decode(errors="replace"))
        return bool(part)

    def _unseen(self) -> str:
        return self.text[self._seen :][-2000:]
