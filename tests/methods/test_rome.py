from __future__ import annotations

import pytest
import torch
from tests.tiny import TEXT, tiny_model

from emend.editing import search_values, subject_keys
from emend.edits import Edit
from emend.errors import InvalidInput
from emend.methods.rome import RomeConfig, filled, rome, search_of
from emend.models import ModelView, score

TEMPLATES = ("{}", "Yes, it is so. {}", "He said. {}")
EDITS = [
    Edit("{} was born in", "Marie Curie", "Paris", id="first"),
    Edit("The mother tongue of {} is", "Tom Berg", "French", id="second"),
    Edit("{} plays the", "Anna", "cello", id="third"),
]
FAST = {"templates": TEMPLATES, "steps": 6, "layer": 1, "learning_rate": 0.1, "cache": False}
PUBLISHED = {"optimizer": "adam", "statements": 0, "enough": 1.0}
R_ROME = {**PUBLISHED, "all_keys": False}


def patched_matrix(view, patch, layer):
    change = patch.delta(view.name_of(view.down_projection(layer)))
    return view.matrix(layer).detach().double() + change.double()


def bias_of(view, layer):
    bias = view.down_projection(layer).bias
    return 0.0 if bias is None else bias.detach().double()


@pytest.mark.parametrize("original", [False, True], ids=["r-rome", "original"])
@pytest.mark.parametrize("architecture", ["gpt2", "llama", "gpt_neo", "gemma2"])
def test_key_gives_the_value_sought(architecture, original) -> None:
    model, tokenizer = tiny_model(architecture, dtype=torch.float64)
    view = ModelView(model)
    form = {**FAST, **({} if original else R_ROME)}
    patch = rome.edit(
        model, tokenizer, EDITS[:1], original=original, texts=TEXT, ridge=1e-3, **form
    )
    config = filled(rome.configure(original=original, **form), view)
    (value,) = search_values(view, tokenizer, EDITS[:1], TEMPLATES, 1, search_of(config, view))
    # R-ROME is exact at the mean key, the published form at the bare prompt's.
    key = value.keys[0] if original else value.keys.mean(0)
    other = value.keys.mean(0) if original else value.keys[0]
    matrix, bias = patched_matrix(view, patch, 1), bias_of(view, 1)
    assert torch.allclose(matrix @ key.double() + bias, value.sought.double(), atol=1e-4)
    assert not torch.allclose(matrix @ other.double() + bias, value.sought.double(), atol=1e-3)


def test_target_becomes_likelier() -> None:
    model, tokenizer = tiny_model("llama")
    settings = {**FAST, "steps": 25, "clamp": 100.0, "weight_decay": 0.0}
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


def test_attached_patches_do_not_change_what_is_sought() -> None:
    model, tokenizer = tiny_model("llama")
    clean = rome.edit(model, tokenizer, EDITS[:1], **FAST)
    (name,) = clean.factors
    with rome.edit(model, tokenizer, EDITS[1:], **FAST).applied(model):
        again = rome.edit(model, tokenizer, EDITS[:1], **FAST)
    assert torch.equal(clean.delta(name), again.delta(name))


def test_patch_says_what_it_was_made_with() -> None:
    model, tokenizer = tiny_model("llama")
    patch = rome.edit(model, tokenizer, EDITS[:1], **FAST)
    assert patch.statistics["kind"] == "second moment"
    assert patch.statistics["source"] == "own samples, 256 tokens, seed 0"
    assert patch.templates == TEMPLATES
    assert patch.config["layer"] == 1
    weighed = rome.edit(model, tokenizer, EDITS[:1], texts=TEXT, **FAST)
    assert weighed.statistics["kind"] == "second moment"
    assert weighed.statistics["tokens"] == sum(len(tokenizer(t)["input_ids"]) for t in TEXT)
    without = rome.edit(model, tokenizer, EDITS[:1], second_moment=False, **FAST)
    assert without.statistics == {"kind": "identity", "why": "second_moment is False"}
    (name,) = patch.factors
    changes = [one.delta(name) for one in (patch, weighed, without)]
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert not torch.allclose(changes[one], changes[other])


@pytest.mark.parametrize("moment", [True, False])
def test_every_context_responds_alike(moment) -> None:
    """All keys get delta, where R-ROME writes at a mean that may be near none of them."""
    model, tokenizer = tiny_model("gpt2", dtype=torch.float64, scale=2.0)
    view = ModelView(model)
    keys = subject_keys(view, tokenizer, EDITS[:1], TEMPLATES, [1])[1].keys[0].double()  # (C, m)
    spread = {}
    for form in (True, False):
        settings = {**FAST, **PUBLISHED, "all_keys": form, "second_moment": moment}
        patch = rome.edit(model, tokenizer, EDITS[:1], texts=TEXT, **settings)
        (factor,) = patch.factors.values()
        responses = (keys @ factor.A[0].double()) * factor.B[:, 0].double().norm()
        spread[form] = float((responses / responses.mean() - 1).abs().max())
    assert spread[True] < 0.1
    assert spread[True] < 0.5 * spread[False]


def test_direction_follows_the_second_moment() -> None:
    model, tokenizer = tiny_model("gpt2")
    view = ModelView(model)
    patch = rome.edit(model, tokenizer, EDITS[:1], second_moment=False, **FAST, **R_ROME)
    key = subject_keys(view, tokenizer, EDITS[:1], TEMPLATES, [1])[1].keys[0].mean(0)
    (factor,) = patch.factors.values()
    assert torch.allclose(factor.A[0], key / key.norm(), atol=1e-5)


@pytest.mark.parametrize(("architecture", "layer", "steps"), [("gpt2", 1, 20), ("llama", 1, 25)])
def test_defaults_come_from_the_shape(architecture, layer, steps) -> None:
    view = ModelView(tiny_model(architecture)[0])
    config = filled(RomeConfig(original=True), view)
    assert (config.layer, config.steps) == (layer, steps)
    assert (config.optimizer, config.statements, config.enough) == ("adam", 0, 1.0)
    assert not config.all_keys
    config = filled(RomeConfig(), view)
    assert (config.layer, config.steps, config.optimizer) == (layer, 20, "lbfgs")
    assert config.statements > 0 and config.enough < 1 and config.all_keys
    assert filled(RomeConfig(layer=-1), view).layer == view.num_layers - 1
    assert filled(RomeConfig(original=True), view).ridge == 0.0


def test_bad_settings_are_refused() -> None:
    model, tokenizer = tiny_model("gpt2")
    for settings in ({"layer": 9}, {"steps": 0}, {"templates": ("no place",)}):
        with pytest.raises(InvalidInput):
            rome.edit(model, tokenizer, EDITS[:1], **{**FAST, **settings})
