"""A server that is killed loses no edit that it acknowledged; one that is ended drains."""

from __future__ import annotations

import json
import signal
import threading

import httpx2
import pytest
from tests.server.process import AUTHORIZED, Process, acknowledged, check_after_a_kill

QUICK = ("--method", "rome", "--set", "steps=8")


def stream_of(server, body, lines, started):
    """Read a stream to its end, line by line."""
    with (
        httpx2.Client(base_url=server.url, timeout=60) as client,
        client.stream("POST", "/v1/completions", json={**body, "stream": True}) as answer,
    ):
        for line in answer.iter_lines():
            if line:
                lines.append(line)
                started.set()


def test_a_kill_loses_nothing_that_was_acknowledged_and_an_end_drains(tmp_path, edits):
    with Process(tmp_path, "lab/gptneo", *QUICK) as server:
        made = {server.edit(edits[0], keep_failed=True).json()["id"]: edits[0]}
        killing = threading.Timer(0.7, server.signal, [signal.SIGKILL])
        killing.start()
        made |= acknowledged(server, edits[1:], keep_failed=True)
        assert len(made) < len(edits)
        assert server.kill() == -signal.SIGKILL
    with Process(tmp_path, "lab/gptneo", *QUICK) as server:
        check_after_a_kill(server, made)
        secret = {"statement": "The {Secret Tower} is in -> Rome", "probes": "none"}
        answer = server.client.post("/v1/edits", json=secret, headers=AUTHORIZED)
        assert answer.status_code in (201, 422)
        prompt = edits[0]["prompt"].replace("{}", edits[0]["subject"])
        body = {"model": server.edited, "prompt": [prompt] * 4, "max_tokens": 60, "temperature": 2}
        lines, started = [], threading.Event()
        reading = threading.Thread(target=stream_of, args=(server, body, lines, started))
        reading.start()
        assert started.wait(30)
        assert server.end() == 0
        reading.join(30)
        assert lines[-1] == "data: [DONE]"
        choices = [one for line in lines[:-1] for one in json.loads(line[6:])["choices"]]
        ends = {one["index"]: one["finish_reason"] for one in choices}
        assert len(ends) == 4
        assert None not in ends.values()
    log = server.log.read_text()
    assert "Secret" not in log
    assert "Traceback" not in log
    with pytest.raises(httpx2.TransportError):
        httpx2.get(f"{server.url}/healthz")
