"""Sampling: the model's own probabilities, whatever the batch, and nothing of torch's own state."""

from __future__ import annotations

import pytest
import torch
from tests.tiny import ARCHITECTURES, tiny_model

from emend.errors import InvalidInput, NumericalFailure
from emend.models.sampling import barred, sample


def drawn(model, tokenizer, ids, length, seed=0, **settings):
    """A sample with a seed."""
    return sample(model, tokenizer, ids, length, torch.Generator().manual_seed(seed), **settings)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_likeliest_is_what_a_whole_pass_says(architecture) -> None:
    """With one candidate nothing is left to chance: the cache must change no token."""
    model, tokenizer = tiny_model(architecture)
    begun = torch.tensor([[5, 9], [17, 3], [40, 41]])
    found = drawn(model, tokenizer, begun, 9, top=1)
    closed = barred(tokenizer, model.config.get_text_config().vocab_size)
    expected = begun
    with torch.no_grad():
        while expected.shape[1] < 9:
            logits = model(input_ids=expected).logits[:, -1].float()
            logits[:, closed] = -torch.inf
            expected = torch.cat([expected, logits.argmax(-1, keepdim=True)], dim=1)
    assert torch.equal(found, expected)


def test_tokens_come_as_often_as_they_are_probable() -> None:
    model, tokenizer = tiny_model("gpt2")
    begun = torch.tensor([[7, 30]]).expand(4000, -1)
    found = drawn(model, tokenizer, begun, 3)[:, -1]
    with torch.no_grad():
        logits = model(input_ids=begun[:1]).logits[0, -1].float()
    closed = barred(tokenizer, len(logits))
    assert len(closed)
    logits[closed] = -torch.inf
    counts = found.bincount(minlength=len(logits)).float()
    assert counts[closed].sum() == 0
    expected = logits.softmax(-1) * len(found)
    open_ = expected > 0
    # Pearson's chi-squared has as many degrees of freedom as there are tokens, less one.
    statistic = ((counts - expected)[open_].square() / expected[open_]).sum()
    degrees = int(open_.sum()) - 1
    assert degrees - 5 * (2 * degrees) ** 0.5 < statistic < degrees + 5 * (2 * degrees) ** 0.5


def test_a_seed_decides_and_the_global_state_stays() -> None:
    model, tokenizer = tiny_model("llama")
    begun = torch.tensor([[5], [6]])
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = drawn(model, tokenizer, begun, 12)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert torch.equal(drawn(model, tokenizer, begun, 12), first)
    assert not torch.equal(drawn(model, tokenizer, begun, 12, seed=1), first)
    assert not first.is_inference()


def test_what_cannot_be_sampled_is_refused() -> None:
    model, tokenizer = tiny_model("gpt2")
    longest = model.config.n_positions
    with pytest.raises(InvalidInput, match=f"expected at most the {longest} that"):
        drawn(model, tokenizer, torch.tensor([[5]]), longest + 1)
    model.lm_head.weight.data[:] = torch.nan
    with pytest.raises(NumericalFailure, match="logits are not finite"):
        drawn(model, tokenizer, torch.tensor([[5]]), 3)
