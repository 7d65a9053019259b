"""The packages of docs/adding-a-method.md, installed and used as they stand there."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest
import torch
from tests.plugin import declare
from tests.tiny import TEXT, tiny_model

import emend
from emend import methods, metrics
from emend.cli import run

PAGE = (Path(__file__).parent.parent / "docs" / "adding-a-method.md").read_text(encoding="utf-8")
EDITS = [
    emend.Edit("{} was born in", "Marie Curie", "Paris", id="one"),
    emend.Edit("The mother tongue of {} is", "Tom Berg", "French", id="two"),
]


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Both packages, as files and entry points on the path."""
    blocks = re.findall(r"`(\w+)\.py`:\n\n(?:<!--.*?-->\n)?```python\n(.*?)```", PAGE, re.DOTALL)
    assert [name for name, _ in blocks] == ["r_rome", "my_metrics"]
    points = re.findall(r'\[project\.entry-points\."([\w.]+)"\]\n(\w+) = "([\w.:]+)"', PAGE)
    for name, code in blocks:
        (tmp_path / f"{name}.py").write_text(code, encoding="utf-8")
    for group, name, target in points:
        declare(tmp_path, group, f"{name} = {target}\n", package=name)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    for name, _ in blocks:
        sys.modules.pop(name, None)


def test_the_method_edits_like_one_of_ours(installed, capsys):
    assert methods.about()["r_rome"].continues == "additive"
    model, tokenizer = tiny_model("llama", dtype=torch.float64)
    settings = {"layer": 1, "texts": TEXT, "templates": ("{}", "So. {}"), "steps": 5}
    patch = emend.edit(model, tokenizer, EDITS, method="r_rome", **settings)
    assert patch.config["layer"] == 1
    # With lambda 0 and one edit, EMMET at the mean key is R-ROME.
    published = {**settings, "original": True, "cov_weight": 0.0}
    for edit in EDITS:
        other = emend.edit(model, tokenizer, [edit], method="emmet", **published)
        (name,) = other.factors
        expected, found = other.delta(name), patch.only([edit.id]).delta(name)
        assert (found - expected).norm() < 1e-4 * expected.norm()
    assert run(["methods", "r_rome", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert {"layer", "steps", "texts"} <= {one["name"] for one in shown["settings"]}
    assert all(one["help"] for one in shown["settings"])


def test_the_measure_is_reported(installed):
    assert "brevity" in metrics.registry().names()
    model, tokenizer = tiny_model("gpt2")
    summary = emend.evaluate(model, tokenizer, EDITS[:1]).summary
    assert summary["brevity"]["headline"] == "shortness"
