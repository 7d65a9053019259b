"""The hands-on series: every script runs, with what its cells assert, and has a translation."""

from __future__ import annotations

import importlib
import re
import runpy

import pytest
from tools import series

from emend.errors import MissingFile

jupytext = pytest.importorskip("jupytext", reason="needs pip install 'emend[notebooks]'")
pytest.importorskip("nbclient", reason="needs pip install 'emend[notebooks]'")

tool = importlib.import_module("tools.notebooks")
SCRIPTS = tool.scripts()


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_every_claim_of_a_notebook_holds(script, monkeypatch, tmp_path):
    """As a plain script, which loads the libraries once; Jupyter runs the small one below."""
    monkeypatch.setenv("MPLBACKEND", "Agg")
    monkeypatch.chdir(tmp_path)
    try:
        runpy.run_path(str(script), run_name="__main__")
    except MissingFile as error:  # no package index is reachable, and SmolLM2 is not here
        pytest.skip(str(error))
    plt = importlib.import_module("matplotlib.pyplot")
    assert len(plt.get_fignums()) >= 2
    plt.close("all")


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_notebooks_have_asserts_exercises_and_limits(script):
    cells = jupytext.read(script).cells
    text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    code = [cell.source for cell in cells if cell.cell_type == "code"]
    assert len(re.findall("^ *assert ", "\n".join(code), flags=re.MULTILINE)) >= 5
    assert len(re.findall(r"\*\*(?:Exercise|Question)\.\*\*", text)) >= 4
    assert "## What this notebook did not show" in text
    assert not any(cell.get("outputs") for cell in cells)


COMMON = {
    "headings": r"^#+(?= )",
    "links": r"\]\((.+?)\)",
    "code": r"`([^`]+)`",
    "cells of tables": r"^\|.*",
}


def _found(name, text):
    found = re.findall(COMMON[name], text, flags=re.MULTILINE)
    if name == "cells of tables":
        return [row.count("|") for row in found]
    # The order of words differs between languages.
    return found if name == "headings" else sorted({" ".join(one.split()) for one in found})


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_the_chinese_text_has_all_that_the_english_has(script):
    notebook = jupytext.read(script)
    texts = tool.texts_of(tool.translation_of(script))
    translated = tool.translated(notebook, texts)
    assert [cell.source for cell in translated.cells if cell.cell_type == "code"] == [
        cell.source for cell in notebook.cells if cell.cell_type == "code"
    ]
    for group, chinese in zip(tool.grouped(notebook), texts, strict=True):
        english = "\n\n".join(notebook.cells[number].source for number in group)
        assert re.search("[\u4e00-\u9fff]", chinese)
        for name in COMMON:
            assert _found(name, chinese) == _found(name, english), name
        for word, translation in (("Exercise", "练习"), ("Question", "思考")):
            assert chinese.count(f"**{translation}。**") == english.count(f"**{word}.**")


SMALL = """# %% [markdown]
# # A title

# %%
import matplotlib.pyplot as plt
plt.plot([1, 2])
plt.show()
print("six times seven is", 6 * 7)

# %% [markdown]
# Next: [the other](2_other.ipynb)
"""


def test_the_tool_executes_and_writes_both_languages(monkeypatch, tmp_path):
    source, built = tmp_path / "notebooks", tmp_path / "built"
    for language in ("en", "zh"):
        (source / language).mkdir(parents=True)
    script = source / "en" / "1_small.py"
    script.write_text(SMALL, encoding="utf-8")
    texts = f"# 标题\n{tool.BREAK}\n[下一篇](2_other.ipynb)"
    (source / "zh" / "1_small.md").write_text(texts, encoding="utf-8")
    assert "executed" in tool.build(script, built)
    english = (built / "en/1_small.md").read_text("utf-8")
    chinese = (built / "zh/1_small.md").read_text("utf-8")
    assert english.startswith("# A title")
    assert chinese.startswith("# 标题")
    for page, folder in ((english, "en"), (chinese, "zh")):
        assert "six times seven is 42" in page
        assert "](2_other.md)" in page
        (figure,) = re.findall(r"!\[\]\((.+?)\)", page)
        assert (built / folder / figure).read_bytes().startswith(b"\x89PNG")
    first, second = (
        [cell.source for cell in jupytext.read(built / one / "1_small.ipynb").cells][1]
        for one in ("en", "zh")
    )
    assert first == second

    monkeypatch.setattr(series, "SOURCE", source)
    places = series.current_pages(built)
    assert {"series/en/1_small.md", "series/zh/1_small.md"} <= set(places)
    assert sum(place.endswith(".png") for place in places) == 2
    script.write_text(SMALL.replace("6 * 7", "7 * 6"), encoding="utf-8")
    assert series.current_pages(built) == {}  # a page with outputs of other code is not shown


def test_a_translation_with_too_few_texts_is_refused(tmp_path):
    script = tmp_path / "small.py"
    script.write_text(SMALL, encoding="utf-8")
    with pytest.raises(ValueError, match="1 texts for 2 groups"):
        tool.translated(jupytext.read(script), ["# 标题"])
