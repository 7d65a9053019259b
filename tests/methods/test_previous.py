"""Going on from a patch: order-free methods make what they would have made at once."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file
from tests.methods.test_contract import EDITS, FAST, NAMES, fast
from tests.tiny import TEXT, tiny_model

from emend.editing import second_moments
from emend.edits import Edit
from emend.errors import InvalidInput
from emend.methods import registry
from emend.models import ModelView, score
from emend.patches import Patch, WeightPatch, load_patch

MORE = [
    *EDITS,
    Edit("{} works in", "Ada Berg", "Paris", id="third"),
    Edit("{} lives in", "Tom Curie", "French", id="fourth"),
]


def made(name: str, edits, model, tokenizer, **settings) -> Patch:
    return registry().get(name).edit(model, tokenizer, edits, **{**fast(name, model), **settings})


def apart(one: Patch, other: Patch, model, tokenizer) -> float:
    """How far two patches are apart: by their weights, or else by what they make of questions."""
    if isinstance(one, WeightPatch):
        assert isinstance(other, WeightPatch)
        return difference(one, other)
    found = []
    for patch in (one, other):
        with patch.applied(model):
            scores = score(model, tokenizer, [edit.text for edit in MORE], ["Paris"] * len(MORE))
        found.append(torch.tensor([each.total for each in scores]))
    return float((found[0] - found[1]).norm() / found[1].norm())


def difference(one: WeightPatch, other: WeightPatch) -> float:
    """Largest relative difference of the built weights."""
    assert one.factors.keys() == other.factors.keys()
    return max(
        float((one.delta(name) - other.delta(name)).norm() / other.delta(name).norm())
        for name in one.factors
    )


@pytest.mark.parametrize("name", [n for n in NAMES if registry().get(n).order_free])
def test_order_free_methods_build_the_same_from_any_sequence(name: str, tmp_path) -> None:
    model, tokenizer = tiny_model("llama", dtype=torch.float64)
    whole = made(name, MORE, model, tokenizer)
    first = made(name, MORE[2:], model, tokenizer)
    loaded = load_patch(first.save_pretrained(tmp_path / "first"))
    parts = made(name, MORE[:2], model, tokenizer, previous=loaded)
    assert apart(parts, whole, model, tokenizer) < 1e-4
    assert {edit.id for edit in parts.edits} == {edit.id for edit in MORE}
    assert apart(made(name, MORE[::-1], model, tokenizer), whole, model, tokenizer) < 1e-4


@pytest.mark.parametrize("name", NAMES)
def test_a_new_target_replaces_the_old_one(name: str) -> None:
    model, tokenizer = tiny_model("gpt2", dtype=torch.float64)
    method = registry().get(name)
    first = made(name, EDITS, model, tokenizer)
    changed = Edit(EDITS[0].prompt, EDITS[0].subject, "French", id="changed")
    patch = made(name, [changed], model, tokenizer, previous=first)
    assert sorted(edit.id for edit in patch.edits) == ["changed", "second"]
    if method.order_free:
        fresh = made(name, [EDITS[1], changed], model, tokenizer)
        assert apart(patch, fresh, model, tokenizer) < 1e-4


def test_known_values_are_not_sought_again(monkeypatch) -> None:
    model, tokenizer = tiny_model("llama")
    first = made("memit", MORE[:3], model, tokenizer)
    sought: list[str] = []

    import emend.editing.solved as solved

    real = solved.search_values

    def counted(view, tokenizer, edits, *args, **kwargs):
        sought.extend(edit.id for edit in edits)
        return real(view, tokenizer, edits, *args, **kwargs)

    monkeypatch.setattr(solved, "search_values", counted)
    made("memit", MORE[3:], model, tokenizer, previous=first)
    assert sought == ["fourth"]
    made("memit", MORE[3:], model, tokenizer, previous=first, clamp=0.5)
    assert len(sought) == 5  # with other settings they are other values


def test_values_serve_another_method() -> None:
    model, tokenizer = tiny_model("llama", dtype=torch.float64)
    form = {"statements": 0, "enough": 1.0, "all_keys": False}  # alphaedit's search
    memit = made("memit", MORE[:3], model, tokenizer, **form)
    taken = made("alphaedit", MORE[3:], model, tokenizer, previous=memit)
    assert difference(taken, made("alphaedit", MORE, model, tokenizer)) < 1e-4
    shared = set(memit.state) & set(taken.state)
    assert len(shared) == 3
    assert all(torch.equal(memit.state[name], taken.state[name]) for name in shared)


def test_edits_in_sequence_are_made_on_the_edited_model() -> None:
    model, tokenizer = tiny_model("gpt2", dtype=torch.float64)
    settings = {**FAST["rome"], "sequential": True}
    method = registry().get("rome")
    whole = method.edit(model, tokenizer, EDITS, **settings)
    first = method.edit(model, tokenizer, EDITS[:1], **settings)
    parts = method.edit(model, tokenizer, EDITS[1:], previous=first, **settings)
    assert difference(parts, whole) < 1e-5
    assert difference(method.edit(model, tokenizer, EDITS, **FAST["rome"]), whole) > 1e-4
    assert not model.training and torch.isfinite(whole.delta(next(iter(whole.factors)))).all()


def test_statistics_of_a_sequence_are_those_of_the_base(tmp_path, monkeypatch) -> None:
    """Fault 5: they were taken on the edited model, and kept as those of the base."""
    model, tokenizer = tiny_model("gpt2")
    settings = {**FAST["rome"], "texts": TEXT * 4, "sequential": True, "layer": 2}
    method = registry().get("rome")
    far = {**settings, "layer": 0, "clamp": 40.0, "learning_rate": 5.0, "cache": False}
    first = method.edit(model, tokenizer, EDITS[:1], **far)
    expected = second_moments(ModelView(model), tokenizer, list(TEXT * 4), [2])[2].matrix
    with first.applied(model):
        edited = second_moments(ModelView(model), tokenizer, list(TEXT * 4), [2])[2].matrix
        assert torch.equal(edited, expected)
    monkeypatch.setenv("EMEND_CACHE", str(tmp_path))
    settings["cache"] = True
    method.edit(model, tokenizer, EDITS[1:], previous=first, **settings)
    (kept,) = [
        tensors["moment"]
        for file in (tmp_path / "moments").glob("*.safetensors")
        if "moment" in (tensors := load_file(file))
    ]
    assert torch.equal(kept, expected)


def test_what_cannot_be_continued_is_refused() -> None:
    model, tokenizer = tiny_model("gpt2")
    rome = made("rome", EDITS[:1], model, tokenizer)
    memit = made("memit", EDITS[:1], model, tokenizer)
    with pytest.raises(InvalidInput, match="made by memit, expected rome"):
        made("rome", EDITS[1:], model, tokenizer, previous=memit)
    with pytest.raises(InvalidInput, match="expected a weight patch"):
        made("memit", EDITS[1:], model, tokenizer, previous="rome")
    other, _ = tiny_model("llama")
    with pytest.raises(InvalidInput, match="hash"):
        made("rome", EDITS[1:], other, tokenizer, previous=rome)
