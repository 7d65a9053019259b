from __future__ import annotations

import pytest
import torch
from tests.methods.closed_form import edited
from tests.tiny import TEXT, tiny_model

from emend.editing import Search, SearchSettings, Session, collect_covariance, optimise_values
from emend.editing.ridge import directions, inverse
from emend.edits import Edit
from emend.errors import InvalidInput
from emend.methods.rome import rome, updates
from emend.models import ModelView, score

TEMPLATES = ("{}", "Yes, it is so. {}", "He said. {}")
EDITS = [
    Edit("{} was born in", "Marie Curie", "Paris", id="first"),
    Edit("The mother tongue of {} is", "Tom Berg", "French", id="second"),
    Edit("{} plays the", "Anna", "cello", id="third"),
]
FAST = {"templates": TEMPLATES, "steps": 6, "layer": 1}


def patched_matrix(view, patch, layer):
    change = patch.delta(view.name_of(view.down_projection(layer)))
    return view.matrix(layer).detach().double() + change.double()


def bias_of(view, layer):
    bias = view.down_projection(layer).bias
    return 0.0 if bias is None else bias.detach().double()


@pytest.mark.parametrize("architecture", ["gpt2", "llama", "gpt_neo", "gemma2"])
def test_published_key_gives_the_target_value(architecture) -> None:
    model, tokenizer = tiny_model(architecture, dtype=torch.float64)
    view = ModelView(model)
    form = {**FAST, "norm_penalty": 0.5}
    patch = edited("rome", model, tokenizer, EDITS[:1], original=True, texts=TEXT, **form)
    settings = SearchSettings(steps=6, clamp=4.0, norm_penalty=0.5, published_order=True)
    (value,) = optimise_values(view, tokenizer, EDITS[:1], TEMPLATES, 1, settings)
    key, other = value.keys[0], value.keys.mean(0)  # exact at the bare prompt's
    matrix, bias = patched_matrix(view, patch, 1), bias_of(view, 1)
    assert torch.allclose(matrix @ key.double() + bias, value.target.double(), atol=1e-4)
    assert not torch.allclose(matrix @ other.double() + bias, value.target.double(), atol=1e-3)


def test_target_becomes_likelier() -> None:
    model, tokenizer = tiny_model("llama")
    settings = {**FAST, "steps": 25, "clamp": 100.0, "ablation": {"norm_penalty": 0.0}}
    patch = rome.edit(model, tokenizer, EDITS[:1], **settings)
    before = score(model, tokenizer, [EDITS[0].text], [EDITS[0].target])[0].mean
    with patch.applied(model):
        after = score(model, tokenizer, [EDITS[0].text], [EDITS[0].target])[0].mean
    assert after > before + 0.5


def test_several_edits_are_the_sum_of_each_alone() -> None:
    model, tokenizer = tiny_model("llama", dtype=torch.float64)
    together = rome.edit(model, tokenizer, EDITS, **FAST)
    (name,) = together.factors
    assert together.factors[name].columns == ("first", "second", "third")
    for edit in EDITS:
        alone = rome.edit(model, tokenizer, [edit], **FAST).delta(name)
        found = together.only(edit.id).delta(name)
        assert (found - alone).norm() < 1e-3 * alone.norm()
    rest = together.without("second").delta(name)
    expected = together.delta(name) - together.only("second").delta(name)
    assert torch.allclose(rest, expected, atol=1e-6)


def test_attached_patches_do_not_change_target_values() -> None:
    model, tokenizer = tiny_model("llama")
    clean = rome.edit(model, tokenizer, EDITS[:1], **FAST)
    (name,) = clean.factors
    with rome.edit(model, tokenizer, EDITS[1:], **FAST).applied(model):
        again = rome.edit(model, tokenizer, EDITS[:1], **FAST)
    assert torch.equal(clean.delta(name), again.delta(name))


def test_patch_says_what_it_was_made_with() -> None:
    model, tokenizer = tiny_model("llama")
    patch = rome.edit(model, tokenizer, EDITS[:1], **FAST)
    assert patch.statistics["kind"] == "key covariance"
    assert patch.statistics["source"] == "own samples, 256 tokens, seed 0"
    assert patch.templates == TEMPLATES
    assert patch.config["layer"] == 1
    weighed = rome.edit(model, tokenizer, EDITS[:1], texts=TEXT, **FAST)
    assert weighed.statistics["kind"] == "key covariance"
    assert weighed.statistics["tokens"] == sum(len(tokenizer(t)["input_ids"]) for t in TEXT)
    (name,) = patch.factors
    assert not torch.allclose(patch.delta(name), weighed.delta(name))


@pytest.mark.parametrize("weighed", [True, False])
def test_every_context_responds_alike(weighed) -> None:
    """All keys get delta, where R-ROME writes at a mean that may be near none of them."""
    model, tokenizer = tiny_model("gpt2", dtype=torch.float64, scale=2.0)
    view = ModelView(model)
    (value,) = optimise_values(view, tokenizer, EDITS[:1], TEMPLATES, 1, SearchSettings(steps=2))
    keys = value.keys.double()  # (C, m)
    metric = inverse(collect_covariance(view, tokenizer, TEXT, [1])[1].matrix, 1e-2)

    def solve(rows):
        return metric.unwhiten(metric.whiten(rows.T)).T if weighed else rows.double()

    at_all = keys @ updates([value], solve, ["first"]).A[0].double()
    at_mean = keys @ directions(solve(keys.mean(0)[None]))[0]
    spread = [float((found / found.mean() - 1).abs().max()) for found in (at_all, at_mean)]
    assert spread[0] < 0.1
    assert spread[0] < 0.5 * spread[1]


@pytest.mark.parametrize(("architecture", "layer", "steps"), [("gpt2", 1, 20), ("llama", 1, 25)])
def test_defaults_come_from_the_shape(architecture, layer, steps) -> None:
    session = Session(*tiny_model(architecture), EDITS)
    assert session.one_layer(None) == layer
    assert session.one_layer(-1) == session.view.num_layers - 1
    found = session.search_settings(Search(), published=True)
    assert (found.steps, found.clamp) == (steps, 4.0)
    assert (found.optimizer, found.statements, found.enough) == ("adam", 0, 1.0)
    found = session.search_settings(Search(steps=7))
    assert (found.steps, found.optimizer) == (7, "lbfgs")
    assert found.statements > 0 and found.enough < 1


def test_bad_settings_are_refused() -> None:
    model, tokenizer = tiny_model("gpt2")
    for settings in ({"layer": 9}, {"steps": 0}, {"templates": ("no place",)}):
        with pytest.raises(InvalidInput):
            rome.edit(model, tokenizer, EDITS[:1], **{**FAST, **settings})
