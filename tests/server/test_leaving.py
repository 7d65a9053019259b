"""A client that leaves before its answer: the engine gives the text up, and nothing fails."""

from __future__ import annotations

import json
import logging
import socket
import time

from tests.server.running import serving


def test_a_client_that_leaves_is_not_written_for(lab, tmp_path, caplog, monkeypatch):
    # Texts that no token ends: whoever asks for them leaves long before they are whole.
    monkeypatch.setattr("emend.server.engines._worker.end_tokens", lambda *_: set())
    with serving(*lab, tmp_path / "facts.db") as server:
        engine = server.editor.engine
        body = {"model": server.base, "prompt": "Once upon a time", "max_tokens": 400, "n": 16}
        with caplog.at_level(logging.INFO, "emend.server"):
            with socket.create_connection(("127.0.0.1", server.port)) as client:
                client.sendall(_request("/v1/completions", body))
                _wait_until(lambda: engine.load > 0)
            _wait_until(lambda: '"status": 499' in caplog.text and engine.load == 0)
        assert '"status": 200' not in caplog.text
        assert not [one for one in caplog.records if one.levelno >= logging.ERROR]
        assert server.text(server.base, "Hello")


def _request(path, body):
    content = json.dumps(body).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(content)}\r\n\r\n"
    )
    return head.encode() + content


def _wait_until(holds, seconds=20):
    ends = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < ends
        time.sleep(0.01)
