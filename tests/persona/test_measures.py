"""The measures against plain implementations, row by row, without padding."""

from __future__ import annotations

import math

import pytest
import torch
from tests.tiny import tiny_model

from emend.models import encode, join_targets, score, target_log_probs
from emend.patches import Dense, WeightPatch, describe_base
from emend.persona.measures import (
    accuracy,
    cross_entropy,
    drawdown,
    editing_success,
    mean_log_prob,
)

PROMPTS = ["Question: where was Marie Curie born? Answer:", "The capital of France is"]
SAME = ["Warsaw", "Paris is a city in France, and Lyon"]
RIVAL = ["Lyon is in Italy.", "one two"]


@pytest.fixture(scope="module")
def models():
    model, tokenizer = tiny_model("llama")
    name, module = next((n, m) for n, m in model.named_modules() if n.endswith("down_proj"))
    generator = torch.Generator().manual_seed(0)
    change = torch.randn(module.weight.shape, generator=generator) * 0.1
    return model, tokenizer, WeightPatch({name: Dense(change)}, base=describe_base(model))


def plain(model, tokenizer, prompt, target):
    """(tokens, vocabulary): logits at n - 1 predict token n; each row has a mask of its own."""
    encode(tokenizer, [prompt])  # finds the start token
    ((front, end),) = join_targets(tokenizer, [prompt], [target])
    ids = torch.tensor([[*front, *end]])
    with torch.no_grad():
        log_probs = model(ids).logits[0].log_softmax(-1)
    return log_probs[len(front) - 1 : len(front) + len(end) - 1], torch.tensor(end)


def plain_mean(model, tokenizer, targets):
    each = []
    for prompt, target in zip(PROMPTS, targets, strict=True):
        rows, tokens = plain(model, tokenizer, prompt, target)
        each.append(rows[torch.arange(len(tokens)), tokens].mean().item())
    return sum(each) / len(each)


def test_es_is_that_of_a_plain_implementation_with_a_mask_for_each_row(models):
    model, tokenizer, patch = models
    a0 = plain_mean(model, tokenizer, SAME)
    assert mean_log_prob(score(model, tokenizer, PROMPTS, SAME)) == pytest.approx(a0, abs=1e-5)
    with patch.applied(model):
        a, b = (plain_mean(model, tokenizer, each) for each in (SAME, RIVAL))
        ours = [mean_log_prob(score(model, tokenizer, PROMPTS, each)) for each in (SAME, RIVAL)]
    assert a0 != pytest.approx(a, abs=1e-3)
    expected = 1 / (1 + math.exp(-(a - b))) * min(1, math.exp(a - a0))
    assert editing_success(*ours, a0) == pytest.approx(expected, abs=1e-5)


def test_the_two_faults_of_the_published_code_would_give_other_numbers(models):
    model, tokenizer, _ = models
    ours = mean_log_prob(score(model, tokenizer, PROMPTS, SAME))
    late, shared = [], []
    count = None
    for prompt, target in zip(PROMPTS, SAME, strict=True):
        ((front, end),) = join_targets(tokenizer, [prompt], [target])
        with torch.no_grad():
            rows = model(torch.tensor([[*front, *end]])).logits[0].log_softmax(-1)
        at = torch.arange(len(front), len(front) + len(end))
        late.append(rows[at, torch.tensor(end)].mean().item())  # not shifted by one
        count = count or len(end)  # the first row's mask for all
        shared.append(rows[at[:count] - 1, torch.tensor(end[:count])].mean().item())
    assert ours != pytest.approx(sum(late) / 2, abs=1e-3)
    assert ours != pytest.approx(sum(shared) / 2, abs=1e-3)


def test_dd_is_the_divergence_of_the_answers_own_tokens(models):
    model, tokenizer, patch = models
    before = [plain(model, tokenizer, *pair)[0] for pair in zip(PROMPTS, SAME, strict=True)]
    ours_before = target_log_probs(model, tokenizer, PROMPTS, SAME)
    with patch.applied(model):
        after = [plain(model, tokenizer, *pair)[0] for pair in zip(PROMPTS, SAME, strict=True)]
        ours_after = target_log_probs(model, tokenizer, PROMPTS, SAME)
    each = [
        torch.nn.functional.kl_div(new, old, log_target=True, reduction="sum") / len(old)
        for old, new in zip(before, after, strict=True)
    ]
    expected = float(sum(each) / len(each))
    assert expected > 1e-3
    assert drawdown(ours_before, ours_after) == pytest.approx(expected, rel=1e-4)
    assert drawdown(ours_before, ours_before) == 0


def test_es_falls_where_answers_of_the_trait_lose_or_others_are_preferred():
    assert editing_success(-1.0, -9.0, -2.0) > 0.99  # likelier, and preferred
    assert editing_success(-1.0, -1.0, -2.0) == 0.5
    assert editing_success(-3.0, -11.0, -2.0) == pytest.approx(math.exp(-1), rel=1e-3)
    assert editing_success(-1.0, 1e4, -2.0) == pytest.approx(0.0)
    assert editing_success(-1e5, -1e6, 0.0) == 0.0


def test_accuracy_and_cross_entropy_of_a_judge():
    probabilities = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.0, 0.9], [0.4, 0.35, 0.25]])
    assert accuracy(probabilities, 0) == pytest.approx(2 / 3)
    assert accuracy(torch.zeros(2, 3), 0) == 0  # empty answers show no trait
    mean = -(math.log(0.7) + math.log(0.1) + math.log(0.4)) / 3
    assert cross_entropy(probabilities, 0) == pytest.approx(mean, rel=1e-5)
    assert cross_entropy(probabilities, 1) < 20  # a sure mistake is bounded
