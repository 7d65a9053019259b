"""Every Python and shell block of the documentation runs, or the page's source says why not.

A block that is not run, or some of its commands, has a comment above it that readers do not see:

    <!-- not run here: it needs a GPU -->
    <!-- run here without gpt2, curl: it is on the hub, and no server listens -->

What another test runs is marked `<!-- not run here: tests/test_adding.py runs it -->`.
"""

from __future__ import annotations

import re
from itertools import groupby

import pytest
from tests.docs.blocks import BLOCKS, ROOT
from tests.docs.prepared import PREPARED
from tests.docs.running import LANGUAGES, World, run_page

CODE = [block for block in BLOCKS if block.language in LANGUAGES]
RUN = {
    page: list(blocks)
    for page, blocks in groupby((one for one in CODE if one.is_run), lambda one: one.page)
}
NOT_RUN = [block for block in CODE if not block.is_run]


@pytest.fixture(scope="module")
def world():
    return World.make()


@pytest.mark.parametrize("page", RUN)
def test_the_blocks_of_a_page_run(page, world, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run_page(RUN[page], world, PREPARED.get(page, ""))


def test_what_another_test_runs_is_run_there():
    for block in NOT_RUN:
        for test in re.findall(r"tests/\S+\.py", block.reason):
            assert block.page.rpartition("/")[2] in (ROOT / test).read_text(encoding="utf-8")


def test_most_python_blocks_run():
    """A count, so that a page does not grow silent: those that run, and those that say why not."""
    python = [one for one in CODE if one.language == "python"]
    assert sum(one.is_run for one in python) > 0.5 * len(python)
    assert sum(one.is_run for one in CODE) >= 45
    assert all(len(one.reason) > 15 for one in NOT_RUN)
