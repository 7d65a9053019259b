"""Prompts that are read once: the same scores and texts as by `score` and `generate`."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
from tests.patches.helpers import MODULES, random_patch
from tests.tiny import ARCHITECTURES, tiny_model

from emend import models
from emend.models import Inquiry, inquire


def alike(template, count=5):
    """Return prompts that have as many tokens as one another."""
    _, tokenizer = tiny_model("llama")
    prompts = [template.format(letter) for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ"]
    lengths = [len(tokenizer(prompt)["input_ids"]) for prompt in prompts]
    usual = max(lengths, key=lengths.count)
    return [p for p, length in zip(prompts, lengths, strict=True) if length == usual][:count]


PROMPTS = [*alike("Ann {} was born in"), *alike("The old {} Museum is in the town of"), "Rome"]
TARGETS = ("Paris", "Lyon in France", "x")


@pytest.mark.parametrize(
    ("kind", "batch_size"), [*((kind, 32) for kind in ARCHITECTURES), ("llama", 3), ("mixtral", 32)]
)
def test_scores_and_texts_are_those_of_score_and_generate(kind, batch_size):
    model, tokenizer = tiny_model(kind)
    asked = [
        Inquiry(prompt, TARGETS[: 1 + number % 3], ((1,), (2, 4), (3, 20), ())[number % 4])
        for number, prompt in enumerate(PROMPTS)
    ]
    patched = kind in MODULES
    with random_patch(model, kind).applied(model) if patched else nullcontext():
        replies = inquire(model, tokenizer, asked, batch_size=batch_size)
        for one, reply in zip(asked, replies, strict=True):
            assert set(reply.scores) == set(one.targets)
            assert set(reply.texts) == set(one.lengths)
            for target, found in reply.scores.items():
                (alone,) = models.score(model, tokenizer, [one.prompt], [target])
                assert found.token_ids == alone.token_ids
                assert found.greedy == alone.greedy
                assert found.log_probs == pytest.approx(alone.log_probs, abs=1e-5)
            for length, text in reply.texts.items():
                assert [text] == models.generate(
                    model, tokenizer, [one.prompt], max_new_tokens=length
                )


def test_each_prompt_is_read_once(monkeypatch):
    model, tokenizer = tiny_model("llama")
    read = []
    real = model.forward

    def counting(*args, **named):
        read.append(tuple(named["input_ids"].shape))
        return real(*args, **named)

    monkeypatch.setattr(model, "forward", counting)
    inquire(model, tokenizer, [Inquiry(prompt, TARGETS, (4,)) for prompt in PROMPTS[:5]])
    lengths = {len(tokenizer(prompt)["input_ids"]) for prompt in PROMPTS[:5]}
    assert len(lengths) == 1
    (whole,) = [shape for shape in read if shape[1] >= min(lengths)]
    assert whole[0] == 5


def test_an_end_of_text_ends_a_text_and_texts_as_long_as_the_model_reads_are_asked_apart():
    model, tokenizer = tiny_model("llama")
    end = tokenizer.eos_token_id
    prompts = PROMPTS[:5]
    with torch.no_grad():
        head = model.get_output_embeddings()
        kept = head.weight.clone()
        head.weight.copy_(0 * kept)
        head.weight[end] = 1e-3 * kept[end]
    try:
        replies = inquire(model, tokenizer, [Inquiry(prompt, (), (4,)) for prompt in prompts])
        alone = models.generate(model, tokenizer, prompts, max_new_tokens=4)
    finally:
        with torch.no_grad():
            head.weight.copy_(kept)
    assert [reply.texts[4] for reply in replies] == alone
