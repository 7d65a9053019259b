"""Hooks that act where prompts end, and routes, through every way of asking."""

from __future__ import annotations

import pytest
import torch
from tests.tiny import tiny_model

from emend.models import (
    HookAttachment,
    ModelView,
    attach,
    attachments,
    base,
    detach,
    generate,
    score,
    top1,
)
from emend.models.passes import Batch, reading
from emend.models.positions import prompt_tokens

PROMPTS = [
    "Marie Curie was born in",
    "The capital of France is",
    "Anna",
    "Anna Berg works for Nordlicht and plays the",
    "Question: where was Marie Curie born? Answer:",
]

TARGETS = ["Paris", "Lyon", "Tom Berg", "piano", "in Warsaw"]


class Steer(HookAttachment):
    """Adds a vector to a block's output at each prompt's last token, or at all up to it."""

    def __init__(self, model, *, whole=False):
        super().__init__("steer", model)
        self.needs_whole_prompts = whole
        self.block = ModelView(model).layer(1)
        generator = torch.Generator().manual_seed(0)
        self.vector = 20 * torch.randn(model.config.hidden_size, generator=generator)

    def hooks(self, model):
        yield from super().hooks(model)
        yield self.block.register_forward_hook(self.steer)

    def steer(self, _module, _args, output):
        if self.batch is None:
            return None
        hidden = (output[0] if isinstance(output, tuple) else output).clone()
        rows, columns = self.batch.queries(hidden.shape[1])
        for row, column in zip(rows.tolist(), columns.tolist(), strict=True):
            first = 0 if self.needs_whole_prompts else column
            hidden[row, first : column + 1] += self.vector
        return (hidden, *output[1:]) if isinstance(output, tuple) else hidden


def plain(model, tokenizer, prompt, count):
    """One text at a time without a cache, the prompt's end known throughout: the oracle."""
    (ids,) = prompt_tokens(tokenizer, [prompt])
    end = len(ids) - 1
    for _ in range(count):
        with torch.no_grad(), reading(model, Batch(torch.tensor([end]))):
            ids = [*ids, int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax())]
    return ids[end + 1 :]


def told(model, tokenizer, prompt, target):
    """Log-probabilities of a target's tokens, by the same plain pass."""
    (ids,) = prompt_tokens(tokenizer, [prompt])
    with torch.no_grad(), reading(model, Batch(torch.tensor([len(ids) - 1]))):
        logits = model(input_ids=torch.tensor([[*ids, *target[:-1]]])).logits[0, len(ids) - 1 :]
    return logits.log_softmax(-1)[range(len(target)), target].tolist()


@pytest.mark.parametrize("architecture", ["gpt2", "gpt_neo", "llama", "opt", "bloom", "gemma2"])
@pytest.mark.parametrize("whole", [False, True])
def test_where_a_prompt_ends_is_known_in_every_pass(architecture, whole):
    model, tokenizer = tiny_model(architecture, layers=3)
    clean = generate(model, tokenizer, PROMPTS, max_new_tokens=5)
    steer = Steer(model, whole=whole)
    attach(model, steer)
    expected = [plain(model, tokenizer, prompt, 5) for prompt in PROMPTS]
    texts = [tokenizer.decode(ids).split("<|endoftext|>")[0] for ids in expected]
    for side in ("left", "right"):
        tokenizer.padding_side = side
        for batch_size in (1, 64):
            found = generate(model, tokenizer, PROMPTS, max_new_tokens=5, batch_size=batch_size)
            assert [one.strip() for one in found] == [text.strip() for text in texts]
            asked = score(model, tokenizer, PROMPTS, TARGETS, batch_size=batch_size)
            for prompt, one in zip(PROMPTS, asked, strict=True):
                assert one.log_probs == pytest.approx(
                    told(model, tokenizer, prompt, one.token_ids), abs=1e-4
                )
    assert found != clean
    with base(model):
        assert generate(model, tokenizer, PROMPTS, max_new_tokens=5) == clean
    detach(model, steer)
    assert attachments(model) == ()
    assert not steer.handles


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_model_called_directly_is_asked_at_the_last_token(side):
    model, tokenizer = tiny_model("llama", layers=3)
    tokenizer.padding_side = side
    tokenizer.pad_token_id = tokenizer.eos_token_id
    attach(model, Steer(model))
    batch = tokenizer(PROMPTS, return_tensors="pt", padding=True)
    ends = batch.attention_mask.shape[1] - 1 - batch.attention_mask.flip(1).argmax(1)
    with torch.no_grad():
        positions = (batch.attention_mask.cumsum(1) - 1).clamp(min=0)
        logits = model(**batch, position_ids=positions).logits[torch.arange(len(PROMPTS)), ends]
    best = [token for token, _ in top1(model, tokenizer, PROMPTS)]
    assert logits.argmax(-1).tolist() == best


def test_a_cache_carries_on_what_was_begun_with_it():
    model, tokenizer = tiny_model("llama", layers=3)
    attach(model, Steer(model))
    prompt = tokenizer(PROMPTS[0], return_tensors="pt")
    own = model.generate(
        **prompt, max_new_tokens=5, min_new_tokens=5, do_sample=False, pad_token_id=0
    )
    assert own[0, prompt.input_ids.shape[1] :].tolist() == plain(model, tokenizer, PROMPTS[0], 5)


def test_hooks_are_told_of_what_is_read_now_only():
    model, _ = tiny_model("gpt2", layers=2)
    batch = Batch(torch.tensor([3, 5]))
    assert [each.tolist() for each in batch.queries(5)] == [[0], [3]]
    batch.start = 5
    assert [each.tolist() for each in batch.queries(1)] == [[1], [0]]
    batch.start = 6
    assert [each.tolist() for each in batch.queries(1)] == [[], []]
    hook = HookAttachment("hook", model)
    attach(model, hook)
    outer, inner = Batch(torch.tensor([0])), Batch(torch.tensor([1]))
    with reading(model, outer):
        with reading(model, inner):
            assert hook.batch is inner
        assert hook.batch is outer
        with hook.suspended():
            assert hook.batch is None
    assert hook.batch is None
