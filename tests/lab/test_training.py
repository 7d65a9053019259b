"""Training goes on where it was stopped, and ends with a model that transformers loads."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from emend.errors import BrokenFile, UnknownName
from emend.lab import training
from emend.lab.architectures import build_model
from emend.lab.losses import exchange, exchange_loss
from emend.lab.tokenizer import build_tokenizer
from emend.lab.training import CHECKPOINT, TrainingConfig, train
from emend.lab.world import build_world

CONFIG = TrainingConfig(
    "qwen3", facts_steps=1, context_steps=1, warmup=1, long_share=(0, 0, 0), longest_share=(0, 0, 0)
)


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four rows of each batch are enough to see what is done with them."""
    whole = training.batch
    monkeypatch.setattr(training, "batch", lambda *a: tuple(part[:4] for part in whole(*a)))


def test_a_stopped_training_ends_as_an_unbroken_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(CONFIG, tmp_path / "whole", save_every=10)
    batch = training.batch

    def interrupted(*arguments: object) -> object:
        if arguments[-1] == 1:
            raise KeyboardInterrupt
        return batch(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(training, "batch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(CONFIG, tmp_path / "parts", save_every=1)
    assert (tmp_path / "parts" / CHECKPOINT).exists()
    monkeypatch.setattr(training, "batch", batch)
    train(CONFIG, tmp_path / "parts", save_every=1)
    one, other = (AutoModelForCausalLM.from_pretrained(tmp_path / d) for d in ("whole", "parts"))
    for (name, a), (_, b) in zip(one.named_parameters(), other.named_parameters(), strict=True):
        assert torch.equal(a, b), name
    assert not (tmp_path / "parts" / CHECKPOINT).exists()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "whole")
    assert tokenizer.eos_token == "<|endoftext|>"


def test_a_checkpoint_of_other_settings_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "_finish", lambda directory, *rest: directory)
    train(CONFIG, tmp_path, save_every=1)
    with pytest.raises(BrokenFile, match="learning_rate"):
        train(replace(CONFIG, learning_rate=1e-3), tmp_path)


@pytest.mark.parametrize("arch", ["gptneo", "qwen3"])
def test_models_have_the_size_that_ships(arch: str) -> None:
    state = torch.get_rng_state()
    model = build_model(arch, 1200, seed=0)
    assert 4e6 < sum(parameter.numel() for parameter in model.parameters()) < 7e6
    assert torch.equal(state, torch.get_rng_state())


def test_an_unknown_architecture_is_refused() -> None:
    with pytest.raises(UnknownName, match="did you mean 'qwen3'"):
        build_model("qwen", 100, seed=0)


def test_states_are_exchanged_at_the_subject_only() -> None:
    world = build_world(0)
    tokenizer = build_tokenizer(world)
    pairs = exchange(0, 1, world, tokenizer, pairs=6)
    assert torch.equal(pairs.ids, exchange(0, 1, world, tokenizer, pairs=6).ids)
    assert torch.equal(pairs.lookup[:6], pairs.lookup[6:])
    assert torch.equal(pairs.labels[:6], pairs.labels[6:])
    model = build_model("gptneo", len(tokenizer), seed=0)
    same = replace(pairs, ids=torch.cat([pairs.ids[:6]] * 2))
    # Exchanged with itself nothing changes; with another subject the loss does.
    for chosen, changes in ((same, False), (pairs, True)):
        with torch.no_grad():
            exchanged = exchange_loss(model, chosen)
            outside = replace(
                chosen, lookup=torch.full_like(chosen.lookup, chosen.ids.shape[1] - 1)
            )
            assert bool((exchanged - exchange_loss(model, outside)).abs() > 1e-6) is changes
