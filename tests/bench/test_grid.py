"""A grid measures every point once, and goes on where it stopped."""

from __future__ import annotations

import json

import pytest
from tests.tiny import tiny_model

from emend.bench import Grid, Variant, measure_columns
from emend.bench import _grid as module
from emend.edits import Edit, Probe
from emend.errors import InvalidInput, UnknownName

EDITS = [
    Edit(
        "{} was born in", name, "Paris", probes=(Probe("rephrase", f"{name} is from", ("Paris",)),)
    )
    for name in ("Marie Curie", "Anna Berg", "Tom Berg")
]
SHORT = "steps=2,templates={}"


@pytest.fixture
def grid(monkeypatch, tmp_path):
    loaded = tiny_model("gpt2")
    calls = []

    def load(name):
        calls.append(name)
        return loaded

    monkeypatch.setattr(module.api, "load", load)

    def make(counts=(1, 3), name="draw/0", variants=(f"rome:{SHORT}",), values=None):
        measured = []

        def measure(model, tokenizer, edits, patch):
            measured.append(len(edits))
            return measure_columns(model, tokenizer, edits, patch)

        made = Grid(
            *(["tiny"], variants, counts, lambda count: EDITS[:count], measure, name),
            path=tmp_path / "grid.jsonl",
            small=2,
            values=values,
        )
        return made, measured

    make.calls = calls
    return make


def test_every_point_is_measured_once_and_read_afterwards(grid, tmp_path):
    made, measured = grid()
    lines = made.run()
    assert [line["count"] for line in lines] == [1, 3]
    assert measured == [1, 1, 3]  # a count below `small` is measured in parts
    assert all(0 <= line["reliability"] <= 1 and line["seconds"] > 0 for line in lines)
    again, measured = grid(counts=(1, 2, 3))
    assert again.run()[0] == lines[0]
    assert measured == [2]
    other, measured = grid(name="draw/1")
    other.run()
    assert measured == [1, 1, 3]
    read = [json.loads(line) for line in (tmp_path / "grid.jsonl").read_text().split("\n") if line]
    assert len(read) == 5
    assert grid.calls == ["tiny"] * 3  # once a run


def test_joint_methods_share_their_values(grid, tmp_path):
    made, _ = grid((3,), variants=(f"memit:{SHORT}", f"pmet:{SHORT}"), values=tmp_path / "values")
    assert [line["reused"] for line in made.run()] == [False, True]


def test_misspelt_variants_are_refused_before_any_work(grid):
    with pytest.raises(UnknownName, match="did you mean 'steps'"):
        grid(variants=("rome:stepz=1",))[0].run()
    with pytest.raises(InvalidInput, match="name=value"):
        Variant.parse("rome:steps")
    assert grid.calls == []
