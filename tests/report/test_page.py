from __future__ import annotations

import json
import re
from html.parser import HTMLParser

import pytest

from emend.errors import InvalidInput
from emend.metrics import Report
from emend.report import terminal, write

EVIL = "<script>alert('x')</script> & \"quotes\""
VOID = {"meta", "br", "link"}


def record(edit, metric, group, before, after, *, right, prompt="Ana Bel was born in"):
    outcome = {"exact_match": {"before": 0.0, "after": right}}
    outcome["teacher_forced"] = {"before": 0.25, "after": right}
    if metric == "locality":
        outcome["correct"] = {"before": 1.0, "after": right}
    return {
        "edit": edit,
        "metric": metric,
        "group": group,
        "schedule": "single",
        "prompt": prompt,
        "answers": ["Lyon"],
        "rival": None,
        "text_before": before,
        "text_after": after,
        "protocols": outcome,
    }


def report(prompt="Ana Bel was born in"):
    records = [
        record("a", "reliability", "", " Oslo.", " Lyon.", right=1.0, prompt=prompt),
        record("b", "reliability", "", " Oslo.", " Lyon.", right=1.0),
        record("a", "generalization", "rephrase", " Oslo.", " Rome.", right=0.0),
        record("a", "portability", "one_hop", " Norway.", " France.", right=1.0),
        record("a", "locality", "neighborhood", " Lyon.", " Lyon.", right=1.0),
        record("b", "locality", "neighborhood", " Lyon.", " Nice.", right=0.0),
    ]
    names = ["reliability", "generalization", "portability", "locality", "fluency", "efficiency"]
    settings = {
        "model": {"name": "lab/gptneo", "hash": "abc"},
        "methods": {"rome": {"layer": 2}},
        "schedule": "single",
        "edits": 2,
        "versions": {"torch": "2.13"},
    }
    timing = {"per_edit": 0.512, "precompute": 1.0, "peak_memory_bytes": 3 * 2**30, "edits": 2}
    return Report(records, names, settings, timing)


class _Checker(HTMLParser):
    """That elements are closed in order, and what they point to."""

    def __init__(self):
        super().__init__()
        self.open, self.links, self.tags = [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [value for name, value in attrs if name in ("src", "href", "action")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def _page(path):
    text = path.read_text("utf-8")
    checker = _Checker()
    checker.feed(text)
    assert checker.open == []
    return text, checker


def test_page_holds_everything_and_asks_for_nothing(tmp_path):
    path = write({"lab/gptneo": report(), "lab/qwen3": report()}, tmp_path / "r" / "page.html")
    text, checker = _page(path)
    assert checker.links == ["data:,"]  # an icon of nothing, lest a browser ask for one
    assert "http" not in re.sub(r"http-equiv", "", text)
    assert "url(" not in text
    assert "@import" not in text
    assert "script" not in checker.tags
    assert checker.tags.count("svg") == 2 + 4
    for expected in (
        "2 facts edited by rome in lab/gptneo, lab/qwen3, each alone on the unedited model.",
        "0.512 s",
        "3.00 GiB",
        "100.0%",
        "neighborhood",
        "methods.rome.layer",
        "prefers-color-scheme: dark",
        "Numbers from the lab are about the lab",
        "emend edit --model lab/gptneo --method rome",
    ):
        assert expected in text


def test_text_is_escaped(tmp_path):
    path = write({f"my/{EVIL}": report(EVIL)}, tmp_path / "page.html", title=EVIL, command=EVIL)
    text, checker = _page(path)
    assert "script" not in checker.tags
    assert "<script" not in text
    assert "&lt;script&gt;" in text


def test_saved_data_gives_the_same_page(tmp_path):
    made = report()
    data = json.loads(json.dumps({**made.to_dict(), "records": list(made.records)}))
    one = write({"m": made}, tmp_path / "one.html")
    two = write({"m": data}, tmp_path / "two.html")
    assert one.read_bytes() == two.read_bytes()


def test_results_without_answers_still_give_a_page(tmp_path):
    write({"m": Report([], ["reliability", "locality", "fluency"])}, tmp_path / "page.html")
    assert "not asked" in _page(tmp_path / "page.html")[0]


@pytest.mark.parametrize(("results", "message"), [({}, "no results"), ({"m": {}}, "'summary'")])
def test_misuse(results, message, tmp_path):
    with pytest.raises(InvalidInput, match=message):
        write(results, tmp_path / "page.html")
    (tmp_path / "there.html").mkdir()
    with pytest.raises(InvalidInput, match="directory"):
        write({"m": report()}, tmp_path / "there.html")


def test_terminal_table():
    from rich.console import Console

    console = Console(width=100)
    with console.capture() as capture:
        console.print(terminal(report(), title="two edits"))
    lines = capture.get().splitlines()
    assert "two edits" in lines[0]
    (reliability,) = [line for line in lines if "reliability" in line]
    assert "0.0%" in reliability
    assert "100.0%" in reliability
    assert any("one hop" in line for line in lines)


def test_markdown_has_the_numbers_of_the_terminal(tmp_path):
    lines = write(report(), tmp_path / "table.md", title="two | edits").read_text("utf-8")
    title, _, head, rule, first, *_ = lines.split("\n")
    assert title == "**two | edits**"
    assert head.startswith("| measure | edits | before | after |")
    assert rule == "|---|---:|---:|---:|---:|---:|"
    assert first.startswith("| reliability |")
