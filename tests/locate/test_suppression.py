from __future__ import annotations

from math import exp

import pytest
import torch
from tests.tiny import tiny_model

from emend.errors import InvalidInput
from emend.locate import amplify, effect, scaled, suppress
from emend.models import ModelView, score

PROMPT, ANSWER = "Marie Curie was born in", "Warsaw"
NEURONS = [(0, 3), (0, 7), (2, 1)]


def logits(model, tokenizer):
    with torch.no_grad():
        return model(**tokenizer(PROMPT, return_tensors="pt")).logits


@pytest.mark.parametrize("architecture", ["gpt2", "llama", "opt"])
@pytest.mark.parametrize("factor", [0.0, 2.0])
def test_scaling_units_is_scaling_their_columns(architecture, factor) -> None:
    model, tokenizer = tiny_model(architecture)
    view = ModelView(model)
    clean = logits(model, tokenizer)
    with scaled(view, NEURONS, factor):
        found = logits(model, tokenizer)
    assert torch.equal(logits(model, tokenizer), clean)
    with torch.no_grad():
        for layer, unit in NEURONS:
            view.matrix(layer)[:, unit] *= factor
    expected = logits(model, tokenizer)
    assert not torch.allclose(found, clean, atol=1e-4)
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_effect_is_the_relative_change_of_the_answers_probability() -> None:
    model, tokenizer = tiny_model("qwen2")
    view = ModelView(model)
    prompts = [PROMPT, "The birthplace of Marie Curie is"]
    found = effect(view, tokenizer, prompts, ANSWER, NEURONS)

    def chance() -> float:
        scores = score(model, tokenizer, prompts, [ANSWER] * 2)
        return (exp(scores[0].total) + exp(scores[1].total)) / 2

    assert found.before == chance()
    with suppress(view, NEURONS):
        assert found.suppressed == chance()
        assert found.suppression == chance() / found.before - 1
    with amplify(view, NEURONS):
        assert found.amplified == chance()
        assert found.amplification == chance() / found.before - 1


def test_misuse_is_refused_and_leaves_no_hook() -> None:
    model, tokenizer = tiny_model("llama")
    view = ModelView(model)
    with pytest.raises(InvalidInput, match="expected some from 0 to"), suppress(view, [(0, 999)]):
        pass
    with pytest.raises(RuntimeError), amplify(view, NEURONS):
        raise RuntimeError
    assert not any(module._forward_pre_hooks for module in model.modules())
    with pytest.raises(InvalidInput, match="no prompts"):
        effect(view, tokenizer, [], ANSWER, NEURONS)
