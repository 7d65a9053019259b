from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tests.reference import neurons as reference
from tests.tiny import tiny_model

from emend.edits import Edit, Probe
from emend.errors import InvalidInput, UnsupportedModel
from emend.locate import coarse, refine
from emend.methods.kn import kn
from emend.models import ModelView, join_target

EDITS = [
    Edit("{} was born in", "Marie Curie", "Paris", original="Warsaw", id="first"),
    Edit("The mother tongue of {} is", "Tom Berg", "French", original="Danish", id="second"),
]


def embedded(model, tokenizer, prompt, answer):
    _, tokens = join_target(tokenizer, prompt, answer)
    return sum(model.get_input_embeddings().weight[token] for token in tokens)


@pytest.mark.parametrize("architecture", ["gpt2", "llama", "gemma2"])
def test_columns_of_the_found_units_are_shifted_and_no_others(architecture) -> None:
    model, tokenizer = tiny_model(architecture)
    view = ModelView(model)
    edit = EDITS[0]
    patch = kn.edit(model, tokenizer, [edit], steps=4, threshold=0.3)
    attribution = reference.attribute(model, tokenizer, edit.text, "Warsaw", steps=4)
    units = coarse(attribution, 0.3)
    assert patch.statistics["neurons"] == {"first": [list(unit) for unit in units]}
    assert patch.statistics["original"] == {}
    new = embedded(model, tokenizer, edit.text, "Paris")
    old = embedded(model, tokenizer, edit.text, "Warsaw")
    expected = {layer: torch.zeros_like(view.matrix(layer)) for layer, _ in units}
    for layer, unit in units:
        expected[layer][:, unit] = 8 * new - old
    names = {view.name_of(view.down_projection(layer)): layer for layer in expected}
    assert set(names) == set(patch.factors)
    for name, layer in names.items():
        assert torch.allclose(patch.delta(name), expected[layer].detach(), atol=1e-5)
        assert patch.factors[name].rank == sum(one == layer for one, _ in units)


def test_edits_are_made_alone_and_can_be_taken_out() -> None:
    model, tokenizer = tiny_model("llama")
    both = kn.edit(model, tokenizer, EDITS, steps=3)
    turned = kn.edit(model, tokenizer, EDITS[::-1], steps=3)
    alone = [kn.edit(model, tokenizer, [edit], steps=3) for edit in EDITS]
    later = kn.edit(model, tokenizer, EDITS[1:], steps=3, previous=alone[0])
    summed = alone[0] + alone[1]
    for name in both.factors:
        for other in (turned, summed, later):
            assert torch.allclose(both.delta(name), other.delta(name), atol=1e-6)
    for edit, own in zip(EDITS, alone, strict=True):
        only = both.only(edit.id)
        for name in own.factors:
            assert torch.allclose(only.delta(name), own.delta(name), atol=1e-6)


def test_rephrasings_refine() -> None:
    model, tokenizer = tiny_model("gpt_neo")
    prompts = ["The birthplace of Marie Curie is", "Marie Curie comes from"]
    probes = [Probe("rephrase", prompt, ("Paris",)) for prompt in prompts]
    edit = Edit("{} was born in", "Marie Curie", "Paris", original="Warsaw", probes=tuple(probes))
    maps = [
        reference.attribute(model, tokenizer, prompt, "Warsaw", steps=3)
        for prompt in (edit.text, *prompts)
    ]
    sets = [coarse(one, 0.1) for one in maps]
    assert sets[0] != refine(sets, 0.5)
    found = kn.edit(model, tokenizer, [edit], steps=3, threshold=0.1)
    assert found.statistics["neurons"][edit.id] == [list(unit) for unit in refine(sets, 0.5)]
    bare = kn.edit(model, tokenizer, [replace(edit, probes=())], steps=3, threshold=0.1)
    assert bare.statistics["neurons"][edit.id] == [list(unit) for unit in sets[0]]


def test_the_models_own_answer_stands_in_for_an_unknown_original() -> None:
    model, tokenizer = tiny_model("gpt2")
    edit = Edit("{} was born in", "Marie Curie", "Lyon", id="bare")
    patch = kn.edit(model, tokenizer, [edit], steps=3)
    ids, target = join_target(tokenizer, edit.text, edit.target)
    own = model.generate(torch.tensor([ids]), max_new_tokens=len(target), do_sample=False)
    assert patch.statistics["original"] == {"bare": tokenizer.decode(own[0, len(ids) :])}


def test_only_the_named_layers_are_searched() -> None:
    model, tokenizer = tiny_model("qwen3")
    patch = kn.edit(model, tokenizer, EDITS, steps=3, layers=(-1, 1))
    assert patch.config["layers"] == (1, 3)
    units = [unit for found in patch.statistics["neurons"].values() for unit in found]
    assert {layer for layer, _ in units} <= {1, 3}


def test_bad_settings_and_models_are_refused() -> None:
    model, tokenizer = tiny_model("gpt2")
    for settings in (
        *({"layers": (9,)}, {"layers": ()}, {"steps": 0}),
        *({"threshold": 1.0}, {"share": -0.1}),
    ):
        with pytest.raises(InvalidInput):
            kn.edit(model, tokenizer, EDITS, **settings)
    narrow, tokenizer = tiny_model("opt", word_embed_proj_dim=16)
    with pytest.raises(UnsupportedModel, match="embeddings of size 16"):
        kn.edit(narrow, tokenizer, EDITS)
