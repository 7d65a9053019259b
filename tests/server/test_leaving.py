"""A client that leaves before its answer: the engine gives the text up, and nothing fails."""

from __future__ import annotations

import logging
import time

import httpx2
import pytest


def test_a_client_that_leaves_is_not_written_for(server, caplog):
    asked = {"model": server.base, "prompt": "Once upon a time", "max_tokens": 400, "n": 4}
    ends = time.monotonic() + 10
    with caplog.at_level(logging.INFO, "emend.server"):
        with pytest.raises(httpx2.ReadTimeout):
            server.post("/v1/completions", asked, timeout=0.2)
        while '"status": 499' not in caplog.text and time.monotonic() < ends:
            time.sleep(0.05)
    assert '"status": 499' in caplog.text
    assert server.editor.engine.load == 0
    assert not [one for one in caplog.records if one.levelno >= logging.ERROR]
    assert server.text(server.base, "Hello")
