"""`emend serve` in a process of its own, which can be killed."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx2

TOKEN = "a-token-of-tests"
AUTHORIZED = {"Authorization": f"Bearer {TOKEN}"}


class Process:
    """A running server.

    Args:
        folder: Where token, ledger (facts.db) and log are.
        model: As --model.
        more: Further arguments.
        wait: Seconds until it must take requests.
    """

    def __init__(self, folder: Path, model: str = "lab/gptneo", *more: str, wait: float = 120):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "token.txt").write_text(TOKEN)
        with socket.socket() as one:
            one.bind(("127.0.0.1", 0))
            self.port = one.getsockname()[1]
        self.ledger, self.log = folder / "facts.db", folder / "serve.log"
        self.base, self.edited = model, f"{model}:facts"
        self.url = f"http://127.0.0.1:{self.port}"
        arguments = ("serve", "--model", model, "--ledger", str(self.ledger))
        arguments += ("--token_file", str(folder / "token.txt"), "--port", str(self.port), *more)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "emend", *arguments],
                stdout=log,
                stderr=log,
                env={**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"},
            )
        self.client = httpx2.Client(base_url=self.url, timeout=120)
        self._wait(wait)

    def _wait(self, seconds: float) -> None:
        ends = time.monotonic() + seconds
        while self.process.poll() is None and time.monotonic() < ends:
            try:
                if self.client.get("/readyz").status_code == 200:
                    return
            except httpx2.TransportError:
                time.sleep(0.05)
        self.kill()
        raise RuntimeError(f"the server does not answer:\n{self.log.read_text()[-2000:]}")

    def edit(self, record, client=None, **body):
        """Post an edit."""
        given = {"edit": record, "probes": "none", **body}
        return (client or self.client).post("/v1/edits", json=given, headers=AUTHORIZED)

    def revert(self, id_, client=None):
        """Take an edit out."""
        return (client or self.client).delete(f"/v1/edits/{id_}", headers=AUTHORIZED)

    def texts(self, model, prompts, max_tokens=8):
        """Return greedy continuations of prompts, asked in one request."""
        body = {"model": model, "prompt": prompts, "max_tokens": max_tokens, "temperature": 0}
        answer = self.client.post("/v1/completions", json=body)
        answer.raise_for_status()
        return [one["text"] for one in answer.json()["choices"]]

    def signal(self, number: int) -> None:
        """Send a signal."""
        self.process.send_signal(number)

    def kill(self) -> int:
        """Kill it where it runs, and return its exit status."""
        self.client.close()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        return self.process.wait(60)

    def end(self) -> int:
        """Let it drain, and return its exit status."""
        self.client.close()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill()
