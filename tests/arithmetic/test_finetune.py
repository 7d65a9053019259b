"""Vectors by fine-tuning: what is learned, on a model that is left as it is, once."""

from __future__ import annotations

import pytest
import torch
from tests.tiny import tiny_model

from emend.arithmetic import FineTuning, finetune
from emend.errors import InvalidInput
from emend.models import score, weights_hash

TEXTS = [("Anna Berg works for", "Warsaw."), ("Lyon is in", "Denmark."), ("Tom Berg is", "Paris.")]


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("EMEND_CACHE", str(tmp_path / "cache"))


def nll(model, tokenizer):
    return -sum(one.total for one in score(model, tokenizer, *zip(*TEXTS, strict=True)))


@pytest.mark.parametrize(("name", "rank"), [("llama", None), ("llama", 4), ("gpt2", 2)])
def test_a_vector_learns_the_answers_and_its_negation_unlearns_them(name, rank):
    model, tokenizer = tiny_model(name)
    before, hashed = nll(model, tokenizer), weights_hash(model)
    vector = finetune(model, tokenizer, TEXTS, FineTuning(rank=rank, steps=40, learning_rate=2e-2))
    assert weights_hash(model) == hashed
    assert all(one.requires_grad for one in model.parameters())
    with vector.applied(model):
        assert nll(model, tokenizer) < 0.8 * before
    with (-0.3 * vector).applied(model):
        assert nll(model, tokenizer) > before
    assert vector.rank == (rank or 32)
    assert not any("head" in module for module in vector.factors)


def test_a_vector_is_cached_by_all_that_it_depends_on(tmp_path):
    model, tokenizer = tiny_model("llama")
    settings = FineTuning(rank=2, steps=3)
    first = finetune(model, tokenizer, TEXTS, settings)
    places = tmp_path / "cache" / "vectors"
    assert len([*places.iterdir()]) == 1
    again = finetune(model, tokenizer, TEXTS, settings)
    assert all(torch.equal(again.delta(name), first.delta(name)) for name in first.factors)
    assert len([*places.iterdir()]) == 1
    finetune(model, tokenizer, TEXTS[:2], settings)
    finetune(model, tokenizer, TEXTS, FineTuning(rank=2, steps=3, seed=1))
    finetune(tiny_model("llama", seed=1)[0], tokenizer, TEXTS, settings)
    assert len([*places.iterdir()]) == 4


KEPT = ["Mira Holm lives in Warsaw and works for Nordlicht.", "The river runs through Lyon."]


def drift(model, tokenizer, vector):
    """The mean KL(before || after), in nats, of the tokens of the texts to be kept."""
    rows = [torch.tensor([tokenizer.encode(text)]) for text in KEPT]
    before = [model(row).logits.log_softmax(-1) for row in rows]
    with vector.applied(model):
        after = [model(row).logits.log_softmax(-1) for row in rows]
    each = [
        (old.exp() * (old - new)).sum(-1).mean() for old, new in zip(before, after, strict=True)
    ]
    return float(sum(each) / len(each))


def test_texts_that_are_kept_move_less_and_the_answers_are_learned_all_the_same():
    model, tokenizer = tiny_model("llama")
    settings = FineTuning(rank=4, steps=40, learning_rate=2e-2, hold=5.0)
    before = nll(model, tokenizer)
    loose = finetune(model, tokenizer, TEXTS, settings)
    held = finetune(model, tokenizer, TEXTS, settings, kept=KEPT)
    with held.applied(model):
        assert nll(model, tokenizer) < 0.8 * before
    with torch.no_grad():
        assert drift(model, tokenizer, held) < 0.5 * drift(model, tokenizer, loose)


def test_a_training_ends_where_held_out_texts_get_no_better():
    model, tokenizer = tiny_model("llama")
    settings = FineTuning(rank=4, steps=60, learning_rate=2e-2, every=8, patience=2)
    one, other = [("Lyon is in", "Denmark")], [("Lyon is in", "France")]
    with pytest.warns(UserWarning, match="no step lowered the loss"):
        none = finetune(model, tokenizer, one, settings, held_out=other)
    assert none.config["steps_taken"] == 0
    assert none.norm == 0
    early = finetune(model, tokenizer, TEXTS, settings, held_out=TEXTS)
    assert early.config["steps_taken"] > 10
    with early.applied(model):
        stopped = nll(model, tokenizer)
    with finetune(model, tokenizer, TEXTS, settings).applied(model):
        assert stopped <= nll(model, tokenizer) + 1e-4


def test_the_same_seed_gives_the_same_vector_whatever_torch_draws():
    model, tokenizer = tiny_model("llama")
    settings = FineTuning(rank=2, steps=3)
    first = finetune(model, tokenizer, TEXTS, settings, cache=False)
    torch.rand(7)
    again = finetune(model, tokenizer, TEXTS, settings, cache=False)
    assert all(torch.equal(again.delta(name), first.delta(name)) for name in first.factors)


def test_no_texts_and_bad_settings_are_refused():
    model, tokenizer = tiny_model("llama")
    with pytest.raises(InvalidInput, match="there are no texts"):
        finetune(model, tokenizer, [])
    with pytest.raises(InvalidInput, match="no token of the prompt ''"):
        finetune(model, tokenizer, TEXTS, kept=[""])
    with pytest.raises(InvalidInput, match="hold is -1"):
        FineTuning(hold=-1)
    with pytest.raises(InvalidInput, match="steps is 0"):
        FineTuning(steps=0)
