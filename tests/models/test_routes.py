"""Other models answer some prompts, alone or together with the one that was asked."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass

import pytest
import torch
from tests.tiny import tiny_model

from emend.models import Attachment, MixtureComponent, TextAttachment, attach, generate, score, top1
from emend.models.mixture import mixed

PROMPTS = ["Marie Curie was born in", "Anna", "Anna Berg works for Nordlicht and plays the"]
TARGETS = ["Paris", "Tom", "piano"]


class Route(Attachment):
    """Prompts with a word in them are answered by another model, which reads a text before."""

    def __init__(self, model, other, share, word="Anna"):
        super().__init__("route")
        self.model, self.other, self.share, self.word = model, other, share, word
        self.entered = 0

    def route(self, prompts, tokenizer):
        return [self.components(prompt) if self.word in prompt else None for prompt in prompts]

    def components(self, prompt):
        other = MixtureComponent(self.other, f"New fact. {prompt}", self.share, self.acting)
        if self.share == 1:
            return (other,)
        return MixtureComponent(self.model, prompt, 1 - self.share), other

    @contextmanager
    def acting(self):
        self.entered += 1
        yield


@pytest.fixture
def models():
    model, tokenizer = tiny_model("gpt2", layers=2)
    other, _ = tiny_model("gpt2", layers=2, seed=5)
    return model, other, tokenizer


def test_another_model_answers_what_is_routed_to_it(models):
    model, other, tokenizer = models
    read = [f"New fact. {prompt}" for prompt in PROMPTS]
    plain = [ask(model, tokenizer, PROMPTS) for ask in ASKED]
    routed = [ask(other, tokenizer, read) for ask in ASKED]
    route = Route(model, other, 1.0)
    attach(model, route)
    for number, ask in enumerate(ASKED):
        found = ask(model, tokenizer, PROMPTS)
        expected = [plain[number][0], *routed[number][1:]]
        assert [said(one) for one in found] == [said(one) for one in expected]
    assert route.entered


def said(answer):
    """Of a score, a text or a token with its probability what does not round."""
    if isinstance(answer, str):
        return answer
    return answer[0] if isinstance(answer, tuple) else (answer.greedy, round(answer.total, 3))


ASKED = [
    lambda model, tokenizer, prompts: score(model, tokenizer, prompts, TARGETS),
    lambda model, tokenizer, prompts: generate(model, tokenizer, prompts, max_new_tokens=4),
    top1,
]


def mixture(models, prompt, ids, share):
    """Probabilities (vocabulary,) of what follows the prompt and ``ids``: the oracle."""
    model, other, tokenizer = models
    with torch.no_grad():
        own, second = (
            each(torch.tensor([[*tokenizer(text)["input_ids"], *ids]])).logits[0, -1].softmax(-1)
            for each, text in ((model, prompt), (other, f"New fact. {prompt}"))
        )
    return (1 - share) * own + share * second


@pytest.mark.parametrize("batch_size", [1, 8])
def test_voices_mix_their_probabilities(models, batch_size):
    model, other, tokenizer = models
    attach(model, Route(model, other, 0.4))
    scores = score(model, tokenizer, PROMPTS, TARGETS, batch_size=batch_size)
    for prompt, found in zip(PROMPTS[1:], scores[1:], strict=True):
        for step, (token, log_prob) in enumerate(
            zip(found.token_ids, found.log_probs, strict=True)
        ):
            expected = mixture(models, prompt, found.token_ids[:step], 0.4)
            assert log_prob == pytest.approx(expected[token].log().item(), abs=1e-4)
            assert found.greedy[step] == expected.argmax()
    texts = generate(model, tokenizer, PROMPTS, max_new_tokens=4, batch_size=batch_size)
    best = top1(model, tokenizer, PROMPTS, batch_size=batch_size)
    for prompt, text, (token, probability) in zip(PROMPTS[1:], texts[1:], best[1:], strict=True):
        ids: list[int] = []
        for _ in range(4):
            ids.append(int(mixture(models, prompt, ids, 0.4).argmax()))
        assert text == tokenizer.decode(ids)
        assert token == ids[0]
        assert probability == pytest.approx(mixture(models, prompt, [], 0.4).max().item())


def test_what_one_route_gave_away_the_next_leaves_alone(models):
    model, other, tokenizer = models
    third, _ = tiny_model("gpt2", layers=2, seed=9)
    attach(model, Route(model, other, 1.0, word="Berg"))
    alone = score(model, tokenizer, PROMPTS, TARGETS)
    attach(model, Route(model, third, 1.0))
    both = score(model, tokenizer, PROMPTS, TARGETS)
    assert said(both[0]) == said(alone[0])
    assert said(both[2]) == said(alone[2])
    assert said(both[1]) != said(alone[1])


def test_a_patch_of_prompts_says_that_a_direct_call_passes_it_by(models):
    @dataclass
    class Named:
        method: str = "route"

    model, _, tokenizer = models
    attachment = TextAttachment(Named(), model)
    attach(model, attachment)
    score(model, tokenizer, PROMPTS, TARGETS)
    with pytest.warns(UserWarning, match="route patch acts on prompts"):
        model(torch.tensor([[1, 2]]))
    attachment.remove()


def test_a_voice_that_speaks_against_another_makes_nothing_possible() -> None:
    impossible = float("-inf")
    read = torch.tensor([[0.0, 0.0, impossible, impossible]])
    plain = torch.tensor([[0.0, -3.0, -2.0, impossible]])
    found = mixed([read, plain], torch.tensor([[1.5, -0.5]])).softmax(-1)[0]
    assert found.isfinite().all()
    assert found[1] > found[0] and found[2] == found[3] == 0
    rows = torch.cat([read, read]), torch.cat([plain, plain])
    both = mixed(rows, torch.tensor([[1.5, -0.5], [0.5, 0.5]])).softmax(-1)
    assert torch.equal(both[0], found)
    half = (read.softmax(-1) + plain.softmax(-1))[0] / 2
    assert torch.allclose(both[1], half)
