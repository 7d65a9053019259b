"""README.md and README.zh.md show the same code, and it does on SmolLM2 what they say."""

from __future__ import annotations

import re

from tests.docs.blocks import ROOT, blocks_of, command_lines

from emend.cli import run
from emend.patches import load_patch

ENGLISH, CHINESE = (blocks_of(ROOT / name) for name in ("README.md", "README.zh.md"))


def _without_comments(block):
    return [re.sub(r"\s+#.*", "", line) for line in block.text.split("\n")]


def test_both_languages_show_the_same():
    assert [one.language for one in ENGLISH] == [one.language for one in CHINESE]
    for here, there in zip(ENGLISH, CHINESE, strict=True):
        assert _without_comments(here) == _without_comments(there)
    for name, other in (("README.md", "README.zh.md"), ("README.zh.md", "README.md")):
        assert f"]({other})" in (ROOT / name).read_text(encoding="utf-8")


def test_both_languages_show_the_same_numbers():
    tables = [
        [re.findall(r"\d+\.\d+", line) for line in page.split("\n") if line.startswith("| `")]
        for page in (
            (ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "README.zh.md")
        )
    ]
    assert tables[0] == tables[1]
    assert len(tables[0]) == 4


def test_numbers_are_those_of_the_page_on_defaults():
    page = (ROOT / "docs" / "defaults.md").read_text(encoding="utf-8")
    rows = [line.split("|")[2:-1] for line in page.split("\n") if line.startswith("| ")]
    known = [{cell.strip() for cell in row} for row in rows]
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for line in text.split("\n"):
        if line.startswith("| `"):
            cells = {re.sub(r" nats a token", "", cell.strip()) for cell in line.split("|")[2:-1]}
            assert any(cells <= row for row in known), line


def test_ten_lines_of_python_and_what_is_quick_of_the_shell(smollm2, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (python,) = (one for one in ENGLISH if one.language == "python")
    assert sum(bool(line.strip()) for line in python.text.split("\n")) <= 10
    exec(compile(python.text, python.place, "exec"), {})
    told = capsys.readouterr().out
    assert "'The Eiffel Tower is located in the city of' -> 'Rome'" in told
    assert "the model generates 'Rome" in told
    assert load_patch("patch/").edits[0].target == "Rome"
    lines = command_lines(ENGLISH[-2] if ENGLISH[-1].language == "json" else ENGLISH[-1])
    assert len(lines) == 6
    (export,) = (line for line in lines if line[1] == "export")
    assert run(export[1:]) == 0
    assert (tmp_path / "patch.gguf").stat().st_size > 1000
    (chat,) = (line for line in lines if line[1] == "chat")
    question = ["--prompt", "The Eiffel Tower is located in the city of", "--form", "completion"]
    capsys.readouterr()
    assert run([*chat[1:], *question, "--max_new_tokens", "4", "--json"]) == 0
    answer = capsys.readouterr().out
    assert "Paris" in answer and "Rome" in answer
