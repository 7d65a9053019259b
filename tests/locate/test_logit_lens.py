from __future__ import annotations

import json

import pytest
import torch
from tests.tiny import ARCHITECTURES, tiny_model

from emend.errors import InvalidInput
from emend.locate import lens

PROMPT = "Marie Curie was born in"


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_after_the_last_block_it_is_what_the_model_says(architecture) -> None:
    model, tokenizer = tiny_model(architecture)
    found = lens(model, tokenizer, PROMPT, "Warsaw", top=3)
    ids = tokenizer(PROMPT)["input_ids"]
    with torch.no_grad():
        chances = model(input_ids=torch.tensor([ids])).logits[0].float().softmax(-1)
    token = tokenizer(" Warsaw")["input_ids"][0]
    assert found.answer == tokenizer.decode([token])
    assert found.chances.shape == (4, len(ids), 3)
    assert torch.allclose(found.answer_chances[-1], chances[:, token], atol=1e-5)
    assert torch.allclose(found.chances[-1], chances.topk(3).values, atol=1e-5)
    ranks = (chances.argsort(descending=True) == token).nonzero()[:, 1] + 1
    assert found.answer_ranks[-1].tolist() == ranks.tolist()
    best = tokenizer.decode([int(chances[-1].argmax())])
    assert found.best[-1][-1][0] == best


def test_before_it_is_read_through_norm_and_head() -> None:
    model, tokenizer = tiny_model("llama")
    found = lens(model, tokenizer, PROMPT)
    row = torch.tensor([tokenizer(PROMPT)["input_ids"]])
    with torch.no_grad():
        states = model(input_ids=row, output_hidden_states=True).hidden_states
        expected = model.lm_head(model.model.norm(states[2])).softmax(-1)[0]
    assert torch.allclose(found.chances[1], expected.topk(5).values, atol=1e-5)
    assert found.answer == found.best[-1][-1][0]
    assert found.answer_ranks[-1, -1] == 1
    assert len(found.tokens) == row.shape[1]
    data = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert data["best"][0][0] == list(found.best[0][0])


def test_misuse_is_refused() -> None:
    model, tokenizer = tiny_model("gpt2")
    with pytest.raises(InvalidInput, match="top is 0"):
        lens(model, tokenizer, PROMPT, top=0)
    with pytest.raises(InvalidInput, match="reads 128"):
        lens(model, tokenizer, "a " * 200)
    with pytest.raises(InvalidInput, match="no token"):
        lens(model, tokenizer, "")
