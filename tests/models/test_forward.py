"""Batches of similar length, and activations in one call."""

from __future__ import annotations

import pytest
import torch
from tests.tiny import tiny_model

from emend.errors import InvalidInput
from emend.models.forward import batches, fused, target_nll


def test_the_shortest_first_and_all_of_them():
    lengths = [5, 1, 9, 1, 30, 6]
    found = list(batches(lengths, 4))
    assert found == [[1, 3, 0, 5], [2, 4]]


def test_lengths_in_a_batch_stay_near():
    lengths = [5, 1, 9, 1, 30, 6]
    for batch in batches(lengths, 64, spread=4):
        chosen = [lengths[index] for index in batch]
        assert max(chosen) - min(chosen) <= 4
    assert [len(batch) for batch in batches(lengths, 64, spread=4)] == [3, 2, 1]


def test_bad_size_and_nothing():
    assert list(batches([], 4)) == []
    with pytest.raises(InvalidInput, match="batch_size"):
        list(batches([1], 0))


@pytest.mark.parametrize("architecture", ["gpt2", "gpt_neo", "gptj"])
def test_fused_activations_are_the_same_function(architecture):
    model, _ = tiny_model(architecture, dtype=torch.float64)
    act = model.transformer.h[0].mlp.act
    hidden = torch.linspace(-9, 9, 1001, dtype=torch.float64)
    expected = act(hidden)
    with fused(model):
        assert torch.allclose(act(hidden), expected, rtol=1e-12, atol=1e-15)
        assert torch.allclose(act(hidden.float()), expected.float(), atol=1e-6)
        # Half precision is the model's own, to the last bit.
        narrow = act(hidden.bfloat16())
    assert torch.equal(narrow, act(hidden.bfloat16()))
    assert "forward" not in vars(act)
    assert torch.equal(act(hidden), expected)


def test_fused_takes_one_operation():
    model, _ = tiny_model("gpt2")
    act = model.transformer.h[0].mlp.act
    hidden = torch.ones(3, requires_grad=True)
    with fused(model):
        assert type(act(hidden).grad_fn).__name__ == "GeluBackward0"
    assert type(act(hidden).grad_fn).__name__ == "MulBackward0"


def test_the_loss_of_targets_is_their_negative_log_likelihood():
    logits = torch.randn(3, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    targets = torch.tensor([2, 0, 6])
    expected = -logits.softmax(-1)[range(3), targets].log()
    nll = target_nll(logits, targets)
    assert torch.allclose(nll, expected)
    assert nll.dtype == torch.float64
    weights = torch.tensor([0.5, 0.25, 0.0])
    assert torch.allclose(target_nll(logits, targets, weights), expected * weights.double())
    spared = target_nll(logits, targets, spared=3.0)
    assert torch.allclose(spared, (expected - 3).clamp(min=0))
    assert (spared == 0).any()
    assert (spared > 0).any()
