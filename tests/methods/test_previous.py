"""Going on from a patch: order-free methods make what they would have made at once."""

from __future__ import annotations

import copy

import pytest
import torch
from safetensors.torch import load_file
from tests.methods.test_contract import EDITS, NAMES, fast
from tests.tiny import TEXT, tiny_model

from emend.editing import collect_covariance, value_cache
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


@pytest.mark.parametrize("name", [n for n in NAMES if registry().get(n).order_invariant])
def test_order_invariant_methods_build_the_same_from_any_sequence(name: str, tmp_path) -> None:
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
    if method.order_invariant:
        fresh = made(name, [EDITS[1], changed], model, tokenizer)
        assert apart(patch, fresh, model, tokenizer) < 1e-4


def test_known_values_are_not_optimised_again(monkeypatch) -> None:
    model, tokenizer = tiny_model("llama")
    first = made("memit", MORE[:3], model, tokenizer)
    optimised: list[str] = []
    real = value_cache.optimise_values

    def counted(view, tokenizer, edits, *args, **kwargs):
        optimised.extend(edit.id for edit in edits)
        return real(view, tokenizer, edits, *args, **kwargs)

    monkeypatch.setattr(value_cache, "optimise_values", counted)
    made("memit", MORE[3:], model, tokenizer, previous=first)
    assert optimised == ["fourth"]
    made("memit", MORE[3:], model, tokenizer, previous=first, preserve_factor=0.1)
    assert len(optimised) == 5  # with other settings they are other values


def test_values_serve_another_method() -> None:
    model, tokenizer = tiny_model("llama", dtype=torch.float64)
    memit = made("memit", MORE[:3], model, tokenizer, original=True)
    taken = made("alphaedit", MORE[3:], model, tokenizer, previous=memit)
    assert difference(taken, made("alphaedit", MORE, model, tokenizer)) < 1e-4
    shared = set(memit.state) & set(taken.state)
    assert len(shared) == 3
    assert all(torch.equal(memit.state[name], taken.state[name]) for name in shared)


@pytest.mark.parametrize("name", ["rome", "memit"])
def test_edits_in_sequence_are_made_on_the_edited_model(name: str) -> None:
    """As on a model that holds the earlier edits in its weights."""
    model, tokenizer = tiny_model("gpt2", dtype=torch.float64)
    settings = {
        "texts": TEXT * 4,
        ("layer" if name == "rome" else "layers"): 1 if name == "rome" else (1,),
    }
    first = made(name, EDITS[:1], model, tokenizer, **settings)
    more = {**settings, "previous": first, "continues": "sequential"}
    sequence = made(name, EDITS[1:], model, tokenizer, **more)
    merged = copy.deepcopy(model)
    first.merge_into(merged)
    second = made(name, EDITS[1:], merged, tokenizer, **settings)
    (module,) = sequence.factors
    total = first.delta(module) + second.delta(module)
    assert (sequence.delta(module) - total).norm() < 1e-4 * total.norm()
    assert difference(sequence, made(name, EDITS, model, tokenizer, **settings)) > 1e-4
    assert [edit.id for edit in sequence.edits] == [edit.id for edit in EDITS]


def test_only_weights_are_continued_in_sequence() -> None:
    model, tokenizer = tiny_model("gpt2")
    for name, way in (("rome", "joint"), ("grace", "sequential"), ("ft", "additive")):
        with pytest.raises(InvalidInput, match=f"continues is '{way}', expected "):
            made(name, EDITS, model, tokenizer, continues=way)


def test_covariance_of_a_sequence_is_that_of_the_base(tmp_path, monkeypatch) -> None:
    """Fault 5: it was taken on the edited model, and cached as that of the base."""
    model, tokenizer = tiny_model("gpt2")
    first = made("rome", EDITS[:1], model, tokenizer, layer=0, clamp=40.0)
    expected = collect_covariance(ModelView(model), tokenizer, list(TEXT * 4), [2])[2].matrix
    with first.applied(model):
        edited = collect_covariance(ModelView(model), tokenizer, list(TEXT * 4), [2])[2].matrix
        assert torch.equal(edited, expected)
    monkeypatch.setenv("EMEND_CACHE", str(tmp_path))
    more = {"texts": TEXT * 4, "layer": 2, "previous": first, "continues": "sequential"}
    made("rome", EDITS[1:], model, tokenizer, **more)
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


def test_contexts_are_not_those_of_a_patch_without_values() -> None:
    model, tokenizer = tiny_model("gpt2")
    tuned = made("ft", EDITS[:1], model, tokenizer)
    assert tuned.templates == ("{}",)
    patch = registry().get("memit").edit(model, tokenizer, EDITS[1:], previous=tuned, steps=2)
    assert len(patch.templates) > 1
