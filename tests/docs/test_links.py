"""Links of the pages that GitHub shows lead to files and headings that exist."""

from __future__ import annotations

import re

import pytest
from tests.docs.blocks import FENCE, ROOT

PAGES = ["README.md", "README.zh.md", "CONTRIBUTING.md", "CHANGELOG.md"]


def anchors(text):
    """The anchors of a page's headings, as GitHub and the site make them."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", text), re.MULTILINE)
    plain = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings)
    return {heading.strip().replace(" ", "-") for heading in plain}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    text = FENCE.sub("", (ROOT / page).read_text(encoding="utf-8"))
    links = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'src="([^"]+)"', text)
    ours = [link for link in links if not link.startswith("http")]
    assert ours
    for link in ours:
        path, _, anchor = link.partition("#")
        target = ROOT / (path or page)
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target.read_text(encoding="utf-8")), link
