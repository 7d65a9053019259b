"""UltraEdit against its equations written out, its sides of the solve, and its going on."""

from __future__ import annotations

import pytest
import torch
from tests.methods.closed_form import relative
from tests.tiny import tiny_model

import emend
from emend import datasets
from emend.editing import context_rows
from emend.editing.gradients import linear_modules, token_gradients
from emend.edits import Edit
from emend.errors import InvalidInput
from emend.methods.ultraedit import ultraedit
from emend.models import ModelView
from emend.patches import Dense, LowRank, load_patch

PLACES = ["Paris", "is Rome", "Lyon or so", "in French", "a cello", "Berlin, Germany"]
EDITS = [
    Edit("{} was born in", f"Marie {name}", PLACES[number % len(PLACES)], id=f"e{number}")
    for number, name in enumerate("Curie Berg Holm Lund Poe Dahl Falk Grip Hjort Ivar".split())
]


def read(model, tokenizer, names, edits=EDITS):
    view = ModelView(model)
    rows = [each[0] for each in context_rows(tokenizer, edits, ["{}"])]
    return token_gradients(view, rows, linear_modules(view, names), where="targets")


def published(found, eta: float, alpha: float) -> torch.Tensor:
    """Frontier section 1, steps 2 to 4, for one matrix alone, (out, in) float64."""
    h, g = found.inputs.double(), found.gradients.double()
    h_normal = (h - h.mean(0)) / h.std(0, correction=0)
    g_normal = (g - g.mean(0)) / g.std(0, correction=0)
    v = -eta * h_normal.square().sum(1, keepdim=True) * g_normal
    system = h.T @ h + alpha * torch.eye(h.shape[1], dtype=torch.float64)
    return torch.linalg.solve(system, h.T @ v).T


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
@pytest.mark.parametrize("count", [3, 10])
def test_published_settings_are_the_equations(architecture, count) -> None:
    model, tokenizer = tiny_model(architecture, dtype=torch.float64)
    patch = ultraedit.edit(model, tokenizer, EDITS[:count], eta=1e-2, layers=(2,))
    (name,) = patch.factors
    found = read(model, tokenizer, [name], EDITS[:count])[name]
    expected = published(found, eta=1e-2, alpha=1.0)
    assert relative(patch.delta(name), expected) < 1e-4


def test_both_sides_of_the_solve_agree(monkeypatch) -> None:
    """More tokens than inputs: solved on the side of the inputs, and dense."""
    model, tokenizer = tiny_model("gpt2", dtype=torch.float64, width=16, inner=16)
    patch = ultraedit.edit(model, tokenizer, EDITS, eta=1e-2, layers=(1, 2))
    found = read(model, tokenizer, list(patch.factors))
    shared = [found[name] for name in patch.factors]
    assert len(shared[0].inputs) > 16
    assert all(isinstance(factor, Dense) for factor in patch.factors.values())
    h_all = torch.cat([each.inputs for each in shared]).double()
    g_all = torch.cat([each.gradients for each in shared]).double()
    for name, each in zip(patch.factors, shared, strict=True):
        h, g = each.inputs.double(), each.gradients.double()
        h_normal = (h - h_all.mean(0)) / h_all.std(0, correction=0)
        g_normal = (g - g_all.mean(0)) / g_all.std(0, correction=0)
        v = -1e-2 * h_normal.square().sum(1, keepdim=True) * g_normal
        system = h @ h.T + torch.eye(len(h), dtype=torch.float64)
        assert relative(patch.delta(name), (h.T @ torch.linalg.solve(system, v)).T) < 1e-4


def test_strength_is_what_is_added_relative_to_the_output() -> None:
    model, tokenizer = tiny_model("llama")
    patch = ultraedit.edit(model, tokenizer, EDITS, layers=(2,), strength=0.5)
    (name,) = patch.factors
    found = read(model, tokenizer, [name])[name]
    moved = found.inputs @ patch.delta(name).T
    share = float(moved.square().mean().sqrt()) / found.size
    assert 0.1 < share < 1.5


def test_later_turns_see_the_edited_model_and_order_matters() -> None:
    model, tokenizer = tiny_model("gpt2")
    settings = {"layers": (2,), "turn": 4}
    one = ultraedit.edit(model, tokenizer, EDITS, **settings)
    other = ultraedit.edit(model, tokenizer, EDITS[::-1], **settings)
    (name,) = one.factors
    assert not ultraedit.order_invariant
    assert relative(one.delta(name), other.delta(name)) > 1e-3


@pytest.mark.parametrize("whiten", [False, True])
def test_going_on_from_a_patch_is_the_same_as_turns(tmp_path, whiten) -> None:
    model, tokenizer = tiny_model("llama", dtype=torch.float64, width=16, inner=16)
    settings = {"layers": (2,), "turn": 5, "whiten": whiten}
    together = ultraedit.edit(model, tokenizer, EDITS, **settings)
    first = ultraedit.edit(model, tokenizer, EDITS[:5], **settings)
    first = load_patch(first.save_pretrained(tmp_path / "first"))
    both = ultraedit.edit(model, tokenizer, EDITS[5:], previous=first, **settings)
    (name,) = together.factors
    assert [edit.id for edit in both.edits] == [edit.id for edit in EDITS]
    assert relative(both.delta(name), together.delta(name)) < 1e-4


def test_warm_up_counts_in_the_statistics() -> None:
    model, tokenizer = tiny_model("gpt2")
    plain = ultraedit.edit(model, tokenizer, EDITS, layers=(2,), turn=2)
    warm = ultraedit.edit(model, tokenizer, EDITS, layers=(2,), turn=2, warmup=5)
    counts = [next(v for k, v in p.state.items() if k.endswith("count")) for p in (plain, warm)]
    assert float(counts[1]) == pytest.approx(2 * float(counts[0]))


def test_down_projections_of_the_last_quarter_are_changed() -> None:
    model, tokenizer = tiny_model("llama")
    patch = ultraedit.edit(model, tokenizer, EDITS[:2])
    assert list(patch.factors) == ["model.layers.3.mlp.down_proj"]
    assert all(isinstance(factor, LowRank) for factor in patch.factors.values())


@pytest.mark.parametrize(
    "setting",
    [{"turn": 0}, {"layers": (9,)}, {"eta": -1}, {"warmup": -1}],
)
def test_settings_without_meaning_are_refused(setting) -> None:
    model, tokenizer = tiny_model("gpt2")
    with pytest.raises(InvalidInput):
        ultraedit.edit(model, tokenizer, EDITS[:1], **setting)


@pytest.mark.parametrize("name", ["lab/gptneo", "lab/qwen3"])
def test_ten_lab_edits_hold(name) -> None:
    model, tokenizer = emend.load(name)
    edits = datasets.load("lab", limit=10, seed=1)
    patch = emend.edit(model, tokenizer, edits, method="ultraedit")
    with patch.applied(model):
        report = emend.evaluate(model, tokenizer, edits, metrics=["reliability"])
    assert report.summary["reliability"]["after"] >= 0.8
