"""`emend serve` in a process of its own, which can be killed."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx2

TOKEN = "a-token-of-tests"
AUTHORIZED = {"Authorization": f"Bearer {TOKEN}"}
HERE = f"/{Path(__file__).resolve().parts[1]}/"
LEAK = re.compile(
    rf"Traceback|\.py\b|/src/|site-packages|/tmp/|/home/|/root/|/usr/|{re.escape(HERE)}"
    r"|object at 0x|File \""
)
"""What an answer must not tell of the machine."""


def free_port() -> int:
    """Find a port that nobody listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


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
        self.port = free_port()
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


def acknowledged(server: Process, records, **body) -> dict[str, dict[str, str]]:
    """Post edits one after another until the server is gone; return those it acknowledged."""
    made = {}
    with httpx2.Client(base_url=server.url, timeout=120) as client:
        for record in records:
            try:
                answer = server.edit(record, client, **body)
            except httpx2.TransportError:
                break
            assert answer.status_code == 201, answer.text
            made[answer.json()["id"]] = record
    return made


def check_after_a_kill(server: Process, made: dict[str, dict[str, str]]) -> set[str]:
    """Check that what was acknowledged is active and answered, and that nothing is half there.

    Returns:
        Ids that are active and were not acknowledged: at most the one that was under way.
    """
    listed = {one["id"]: one for one in server.client.get("/v1/edits").json()["data"]}
    active = {id_ for id_, one in listed.items() if one["status"] == "active"}
    assert set(made) <= active, (made, active)
    assert len(active - set(made)) <= 1, (made, active)
    assert {one["status"] for one in listed.values()} <= {"active", "reverted"}, listed
    asked = [listed[id_] for id_ in sorted(active)]
    texts = server.texts(server.edited, [one["text"] for one in asked]) if asked else []
    for one, text in zip(asked, texts, strict=True):
        assert text.strip().startswith(one["target"].strip()), (one, text)
    return active - set(made)
