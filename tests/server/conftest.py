"""What the server's tests share: a server on a lab model, and edits that take there."""

from __future__ import annotations

import pytest
from tests.server.running import serving

import emend
from emend.lab import SEED, build_world
from emend.lab.consequences import draw_edits


@pytest.fixture(scope="session")
def lab():
    """lab/gptneo and its tokenizer."""
    return emend.load("lab/gptneo")


@pytest.fixture(scope="session")
def edits():
    """Eight edits of the lab's world, without their probes, as records."""
    drawn = draw_edits(build_world(SEED), 8, seed=3)
    return [{"prompt": one.prompt, "subject": one.subject, "target": one.target} for one in drawn]


@pytest.fixture
def server(lab, tmp_path):
    """A server whose ledger is empty."""
    with serving(*lab, tmp_path / "facts.db", method="rome") as running:
        yield running
