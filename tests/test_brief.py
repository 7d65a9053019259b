"""What objects show of themselves: one line, however much they hold."""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil

import pytest
import torch
from tests.methods.test_contract import EDITS, LONG, fast
from tests.tiny import tiny_model

import emend
from emend._brief import brief, size_text
from emend.methods import registry
from emend.patches import Dense, LowRank, WeightPatch

ROOMS = [one.name for one in pkgutil.iter_modules(emend.__path__) if not one.name.startswith("_")]
HEAVY = ("Tensor", "Record", "records", "samples", "Factor")


def public_dataclasses():
    """The dataclasses that rooms export and that hold tensors or records."""
    for room in ROOMS:
        module = importlib.import_module(f"emend.{room}")
        for name in getattr(module, "__all__", ()):
            kind = getattr(module, name)
            if isinstance(kind, type) and dataclasses.is_dataclass(kind):
                held = [f"{field.name}: {field.type}" for field in dataclasses.fields(kind)]
                if any(word in one for one in held for word in HEAVY):
                    yield kind


@pytest.mark.parametrize("kind", sorted(set(public_dataclasses()), key=str))
def test_what_holds_tensors_has_a_short_repr(kind):
    """Fault 31: `repr(patch)` printed all tensors."""
    generated = hasattr(kind.__repr__, "__wrapped__")  # by dataclasses, guarded against recursion
    assert not generated, f"{kind} prints all it holds"


@pytest.mark.parametrize("name", registry().names())
def test_patches_are_one_line(name):
    """Fault 31, for every kind of patch."""
    model, tokenizer = tiny_model("gpt2", **LONG.get(name, {}))
    patch = registry().get(name).edit(model, tokenizer, EDITS, **fast(name, model))
    line = repr(patch)
    assert line.startswith(f"{type(patch).__name__}: 2 edits by {name}, ")
    assert "\n" not in line
    assert len(line) < 100


def test_weight_patch_says_layers_rank_and_size():
    factor = LowRank(torch.zeros(20, 3000), torch.zeros(1000, 20))
    edits = [emend.Edit("{} is", f"a{n}", "b") for n in range(20)]
    names = {f"model.layers.{n}.mlp.down_proj": factor for n in range(4)}
    patch = WeightPatch(names, edits=tuple(edits), method="memit")
    assert repr(patch) == "WeightPatch: 20 edits by memit, 4 layers, rank 20, 1.3 MB"
    both = {f"{n}.{site}": factor for n in range(2) for site in ("up", "down")}
    assert (
        repr(WeightPatch(both)) == "WeightPatch: 0 edits, 4 matrices in 2 layers, rank 20, 1.3 MB"
    )
    assert (
        repr(WeightPatch({"head": factor})) == "WeightPatch: 0 edits, 1 matrix, rank 20, 320.0 kB"
    )
    assert repr(WeightPatch({})) == "WeightPatch: 0 edits, no change"
    assert repr(factor) == "LowRank: 1000 x 3000, rank 20, 320.0 kB"
    assert repr(Dense(torch.zeros(10, 5))) == "Dense: 10 x 5, 200 B"


def test_reports_and_ledgers_are_one_line(tmp_path):
    model, tokenizer = tiny_model("gpt2")
    patch = emend.edit(model, tokenizer, EDITS, method="ft", steps=1)
    with patch.applied(model):
        report = emend.evaluate(model, tokenizer, EDITS)
    assert repr(report) == f"Report: 2 edits, 5 measures, {len(report.records)} records"
    with emend.Ledger.create(tmp_path / "facts.db") as ledger:
        assert repr(ledger) == f"Ledger: {tmp_path / 'facts.db'}"


def test_brief_shows_sizes_and_short_values():
    @brief
    @dataclasses.dataclass(frozen=True)
    class Held:
        tensor: torch.Tensor
        many: tuple[int, ...]
        few: tuple[int, ...] = (1, 2)
        named: dict[str, object] = dataclasses.field(default_factory=dict)
        text: str = "word\nline"

    held = Held(torch.zeros(2, 3), tuple(range(99)), named={"a": torch.zeros(4)})
    assert repr(held) == (
        "Held(tensor=float32[2, 3], many=<99 items>, few=(1, 2), named=<1 item>, "
        "text='word\\nline')"
    )
    assert [size_text(n) for n in (0, 999, 3400, 5 * 10**9)] == ["0 B", "999 B", "3.4 kB", "5.0 GB"]
