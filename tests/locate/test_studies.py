from __future__ import annotations

import json
import math
from collections import Counter

import pytest
import torch
from tests.tiny import tiny_model

from emend.errors import InvalidInput
from emend.locate import Effect, attribute, effect, knowledge_neurons, study
from emend.models import ModelView

PROMPTS, ANSWER = ["Marie Curie was born in", "The birthplace of Marie Curie is"], "Warsaw"


def test_units_are_the_knowledge_neurons_the_strongest_first() -> None:
    model, tokenizer = tiny_model("llama")
    view = ModelView(model)
    found = study(view, tokenizer, PROMPTS, ANSWER, threshold=0.4, steps=5)
    expected = knowledge_neurons(view, tokenizer, PROMPTS, ANSWER, threshold=0.4, steps=5)
    assert sorted(found.units) == expected
    maps = [attribute(view, tokenizer, prompt, ANSWER, steps=5) for prompt in PROMPTS]
    means = torch.stack(maps).mean(0)
    for (layer, unit), value in zip(found.units, found.attributions, strict=True):
        assert value == pytest.approx(float(means[layer, unit]), rel=1e-4)
    assert list(found.attributions) == sorted(found.attributions, reverse=True)
    assert found.effect == effect(view, tokenizer, PROMPTS, ANSWER, found.units)
    data = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert data["effect"]["suppression"] == found.effect.suppression
    assert data["units"][0]["attribution"] == found.attributions[0]


def test_it_is_compared_with_as_many_units_of_the_same_layers(monkeypatch) -> None:
    model, tokenizer = tiny_model("gpt2")
    asked = []

    def watched(view, tokenizer, prompts, answer, units):
        asked.append(list(units))
        return effect(view, tokenizer, prompts, answer, units)

    monkeypatch.setattr("emend.locate.studies.effect", watched)
    for seed in (0, 0, 1):
        study(ModelView(model), tokenizer, PROMPTS, ANSWER, steps=3, seed=seed)
    own, drawn = asked[0], asked[1]
    assert Counter(layer for layer, _ in own) == Counter(layer for layer, _ in drawn)
    assert len(set(drawn)) == len(own)
    assert asked[3] == drawn
    assert asked[5] != drawn


def test_a_change_of_nothing_is_no_number() -> None:
    assert math.isnan(Effect(0.0, 0.0, 0.1).amplification)
    assert Effect(0.5, 0.25, 1.0).suppression == -0.5


def test_misuse_is_refused() -> None:
    model, tokenizer = tiny_model("gpt2")
    view = ModelView(model)
    with pytest.raises(InvalidInput, match="no prompts"):
        study(view, tokenizer, [], ANSWER)
    with pytest.raises(InvalidInput, match="threshold is 1"):
        study(view, tokenizer, PROMPTS, ANSWER, threshold=1.0)
