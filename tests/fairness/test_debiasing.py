"""Pronouns made even: the aim's formula, the loss, and the lab's models before and after."""

from __future__ import annotations

import math

import pytest
import torch
from tests.fairness.test_pronouns import LAB, gptneo  # noqa: F401
from tests.tiny import tiny_model

from emend import datasets
from emend.editing.aims import Scored
from emend.errors import InvalidInput, UnknownName
from emend.fairness import Occupations, debias, pronoun_gap
from emend.fairness.debiasing import EvenPair
from emend.fairness.shared import EvenBatch, EvenRows
from emend.models import ModelView, score
from emend.models.replay import capture_blocks, whole


def scored(logits):
    count = torch.zeros(len(logits), dtype=torch.long)
    return Scored(logits, (), count, count)


def test_the_aim_is_least_where_the_pair_is_even_and_keeps_its_mass():
    aim = EvenPair(1, 3)
    logits = torch.tensor([[0.0, 2.0, 1.0, 2.0], [0.0, 3.0, 1.0, -1.0]], requires_grad=True)
    loss = aim.loss(scored(logits))
    expected = [4 * math.log(math.cosh(d / 2)) for d in (0.0, 4.0)]
    assert loss.tolist() == pytest.approx(expected, abs=1e-5)
    assert aim.reached(scored(logits)).tolist() == [True, False]
    (gradient,) = torch.autograd.grad(loss.sum(), logits)
    assert gradient[1, 1] > 0 > gradient[1, 3]
    assert gradient.sum(1).abs().max() < 1e-6  # one falls as the other rises
    assert gradient[:, [0, 2]].abs().max() == 0


def test_the_shared_loss_equals_a_plain_one():
    model, _ = tiny_model("llama")
    view = ModelView(model)
    rows = [(1, 5, 9, 4), (1, 7, 2), (1, 3, 8, 6)]
    capture = capture_blocks(view, rows, [0] * 3, 1, arrangements=(whole,))
    places = torch.tensor([0, 1, 2]), torch.tensor([3, 2, 3])
    even = torch.tensor([True, True, False])
    hidden = capture.run_blocks()[places].detach()
    batch = EvenBatch((EvenRows(capture, *places, hidden, even),), (10, 12), 0.5)
    found = batch.loss(view, EvenPair(10, 12)).item()
    expected = 0.0
    for row in rows[:2]:
        with torch.no_grad():
            p = model(torch.tensor([row])).logits[0, -1].double().softmax(-1)
        q = p.clone()
        q[[10, 12]] = (p[10] + p[12]) / 2
        expected += (q * (q / p).log()).sum().item() / 2
    assert found == pytest.approx(expected, rel=1e-3)  # nothing has moved in the third row


def recall(model, tokenizer, count=60):
    facts = datasets.load("lab", limit=count, seed=3)
    asked = [fact.text for fact in facts], [fact.original for fact in facts]
    return sum(one.token_accuracy == 1 for one in score(model, tokenizer, *asked)) / count


def test_one_change_for_all_makes_pronouns_even(gptneo, tmp_path):  # noqa: F811
    model, tokenizer = gptneo
    before = recall(model, tokenizer)
    patch = debias(model, tokenizer, LAB, passes=3, prompts=120)
    found = pronoun_gap(model, tokenizer, LAB, patch).measures
    assert found.after["gap"].value < 0.4 * found.before["gap"].value
    assert found.change["gap"].high < 0
    assert found.after["mass"].value > 0.95 * found.before["mass"].value
    with patch.applied(model):
        assert recall(model, tokenizer) >= before - 0.04
    again = pronoun_gap(model, tokenizer, LAB).measures.before
    assert again["gap"].value == found.before["gap"].value  # the model itself is unchanged


def test_a_method_with_the_aim_makes_its_occupations_even(gptneo):  # noqa: F811
    model, tokenizer = gptneo
    few = Occupations(("nurse", "pilot"), LAB.templates[:2])
    patch = debias(model, tokenizer, few, "memit")
    found = pronoun_gap(model, tokenizer, few, patch).measures
    assert found.after["gap"].value < 0.5 * found.before["gap"].value
    assert patch.config["aim"]["name"] == "even_pair"


def test_what_cannot_be_done_gets_one_line(gptneo):  # noqa: F811
    model, tokenizer = gptneo
    few = Occupations(("nurse",), LAB.templates[:1])
    with pytest.raises(UnknownName):
        debias(model, tokenizer, few, "memitt")
    with pytest.raises(InvalidInput, match="the aim even_pair is given, and grace only makes"):
        debias(model, tokenizer, few, "grace")
