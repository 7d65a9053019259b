"""Scores agree with the plain forward, at every batch size and padding side."""

from __future__ import annotations

import pytest
import torch
from tests.tiny import ARCHITECTURES, tiny_model

from emend.errors import InvalidInput
from emend.models import Score, join_target, score

PROMPTS = [
    "Marie Curie was born in",
    "The capital of France is",
    "北京 is the capital of",
    "Anna",
    "Anna Berg works for Nordlicht and plays the",
    "Question: where was Marie Curie born? Answer:",
    "The capital of France is",
]
TARGETS = ["Warsaw", "Paris", "中国", "Berg", "violin", "the capital of Poland", "Lyon"]


def plain_score(model, tokenizer, prompt, target):
    """One text, one pass, all positions: the oracle."""
    prompt_ids, target_ids = join_target(tokenizer, prompt, target)
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([prompt_ids + target_ids])).logits[0].float()
    at = logits[len(prompt_ids) - 1 : -1]
    log_probs = at.log_softmax(-1)[range(len(target_ids)), target_ids]
    return target_ids, log_probs.tolist(), at.argmax(-1).tolist()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("side", ["left", "right"])
def test_scores_do_not_depend_on_batch_or_padding(architecture, side):
    model, tokenizer = tiny_model(
        architecture, layers=2, tokenizer="bytes" if side == "left" else "metaspace_bos"
    )
    tokenizer.padding_side = side
    for batch_size in (1, 64):
        scores = score(model, tokenizer, PROMPTS, TARGETS, batch_size=batch_size)
        for prompt, target, found in zip(PROMPTS, TARGETS, scores, strict=True):
            ids, log_probs, greedy = plain_score(model, tokenizer, prompt, target)
            assert found.token_ids == ids
            assert found.log_probs == pytest.approx(log_probs, abs=1e-5)
            assert found.greedy == greedy


def test_measures_of_one_score():
    one = Score(token_ids=[4, 5, 6, 7], log_probs=[-1.0, -2.0, -3.0, -2.0], greedy=[4, 5, 0, 7])
    assert one.total == -8.0
    assert one.mean == -2.0
    assert one.token_accuracy == 0.75


def test_only_scored_positions_reach_the_head():
    model, tokenizer = tiny_model("llama", layers=2)
    rows = []
    handle = model.lm_head.register_forward_hook(
        lambda module, taken, given: rows.append(given.shape[:-1].numel())
    )
    scores = score(model, tokenizer, PROMPTS, TARGETS, batch_size=64)
    handle.remove()
    assert rows == [sum(len(one.token_ids) for one in scores)]


def test_equal_pairs_run_once():
    model, tokenizer = tiny_model("gpt2", layers=2)
    seen = []
    handle = model.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs["input_ids"].shape[0]), with_kwargs=True
    )
    scores = score(model, tokenizer, PROMPTS[:2] * 5, TARGETS[:2] * 5)
    handle.remove()
    assert sum(seen) == 2
    assert scores[0] == scores[2]
    assert scores[0] != scores[1]


def test_nothing_of_the_users_changes():
    model, tokenizer = tiny_model("gpt2", layers=2, resid_pdrop=0.5)
    tokenizer.padding_side = "left"
    expected = score(model, tokenizer, PROMPTS, TARGETS)
    model.train()
    config = model.config.to_dict()
    generation = model.generation_config.to_dict()
    assert score(model, tokenizer, PROMPTS, TARGETS) == expected  # no dropout
    assert model.training
    assert all(module.training for module in model.modules())
    assert model.config.to_dict() == config
    assert model.generation_config.to_dict() == generation
    assert tokenizer.padding_side == "left"
    assert tokenizer.pad_token is None
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_hooks_go_away_after_an_error():
    model, tokenizer = tiny_model("gpt2", layers=2)

    def fail(module, taken, given):
        raise RuntimeError("stop")

    handle = model.transformer.h[0].register_forward_hook(fail)
    with pytest.raises(RuntimeError, match="stop"):
        score(model, tokenizer, ["Anna"], ["Berg"])
    handle.remove()
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_no_prompts_no_scores():
    model, tokenizer = tiny_model("gpt2", layers=1)
    assert score(model, tokenizer, [], []) == []


def test_bad_input():
    model, tokenizer = tiny_model("gpt2", layers=1, positions=16)
    with pytest.raises(InvalidInput, match="2 prompts for 1 targets"):
        score(model, tokenizer, ["a", "b"], ["c"])
    with pytest.raises(InvalidInput, match="batch_size"):
        score(model, tokenizer, ["a"], ["c"], batch_size=0)
    with pytest.raises(InvalidInput, match="reads 16"):
        score(model, tokenizer, ["one two three " * 20], ["c"])
    with pytest.raises(InvalidInput, match="target"):
        score(model, tokenizer, ["a"], [""])


def test_bfloat16_scores_are_float32_of_the_models_logits():
    model, tokenizer = tiny_model("qwen3", layers=2, dtype=torch.bfloat16)
    found = score(model, tokenizer, PROMPTS[:1], TARGETS[:1])[0]
    _, log_probs, greedy = plain_score(model, tokenizer, PROMPTS[0], TARGETS[0])
    assert found.log_probs == pytest.approx(log_probs, abs=1e-5)
    assert found.greedy == greedy
