"""Measures of an erasure, against plain implementations of the published formulas."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from tests.tiny import tiny_model

from emend import Probe
from emend.erasure import metrics
from emend.errors import InvalidInput
from emend.models import Score, score

QUESTION = "Question: where was Marie Curie born? Answer:"
RIGHT = "Marie Curie was born in Warsaw"
WRONG = ("Marie Curie was born in Kraków", "Marie Curie was born in Lyon", "She is from Aarhus")


def plain_losses(model, tokenizer, answer):
    """Losses and greedy tokens of an answer by the model's own loss."""
    start = tokenizer(QUESTION)["input_ids"]
    end = tokenizer(" " + answer, add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([[*start, *end]])).logits[0, len(start) - 1 : -1]
    loss = torch.nn.functional.cross_entropy(logits.float(), torch.tensor(end), reduction="none")
    return loss.numpy(), logits.argmax(-1).numpy(), np.array(end)


def test_truth_ratio_is_the_published_one():
    model, tokenizer = tiny_model("llama")
    answers = [RIGHT, *WRONG]
    right, *wrong = score(model, tokenizer, [QUESTION] * 4, answers)
    means = np.array([plain_losses(model, tokenizer, answer)[0].mean() for answer in answers])
    paper = np.exp(-means[1:]).mean() / np.exp(-means[0])
    code = np.exp(-means[1:].mean()) / np.exp(-means[0])
    assert metrics.truth_ratio(right, wrong) == pytest.approx(paper, rel=1e-4)
    assert metrics.truth_ratio(right, wrong, mean="code") == pytest.approx(code, rel=1e-4)
    ratios = np.array([paper, code, 0.2, 3.0])
    forget = np.minimum(ratios, 1 / ratios).mean()
    assert metrics.truth_score(list(ratios)) == pytest.approx(forget)
    retain = np.maximum(0, 1 - ratios).mean()
    assert metrics.truth_score(list(ratios), of="retain") == pytest.approx(retain)


def test_extraction_strength_and_exact_memorization_of_a_model():
    model, tokenizer = tiny_model("gpt2")
    for answer in (RIGHT, *WRONG):
        (found,) = score(model, tokenizer, [QUESTION], [answer])
        _, greedy, labels = plain_losses(model, tokenizer, answer)
        assert metrics.exact_memorization(found) == pytest.approx((greedy == labels).mean())
        length = len(labels)
        first = next(k for k in range(length + 1) if (greedy[k:] == labels[k:]).all())
        assert metrics.extraction_strength(found) == pytest.approx(1 - first / length)


@pytest.mark.parametrize(
    ("greedy", "strength", "memorised"),
    [([1, 2, 3, 4], 1, 1), ([9, 2, 3, 4], 0.75, 0.75), ([1, 2, 3, 9], 0, 0.75), ([9] * 4, 0, 0)],
)
def test_extraction_strength_by_hand(greedy, strength, memorised):
    scored = Score([1, 2, 3, 4], [-1.0] * 4, greedy)
    assert metrics.extraction_strength(scored) == strength
    assert metrics.exact_memorization(scored) == memorised


def test_rewrite_score():
    assert metrics.rewrite_score(0.8, 0.2) == pytest.approx(0.75)
    assert metrics.rewrite_score(0.8, 0.9) == pytest.approx(-0.125)
    assert metrics.rewrite_score(0.2, 0.8, aim="injection") == pytest.approx(0.75)
    with pytest.raises(InvalidInput, match="nothing to change"):
        metrics.rewrite_score(0.0, 0.0)
    with pytest.raises(InvalidInput, match="expected 0 to 1"):
        metrics.rewrite_score(1.2, 0.0)


def test_an_answer_is_found_anywhere_as_words_of_its_own():
    assert metrics.contains_answer(" the heart of Paris, France.", ["Paris"])
    assert metrics.contains_answer("他住在巴黎。", ["巴黎"])
    assert not metrics.contains_answer(" a comparison of 1993", ["Paris", "99"])
    assert not metrics.contains_answer("", ["Paris"])


def test_accuracy_looks_into_the_greedy_continuation():
    model, tokenizer = tiny_model("llama")
    text = tokenizer.decode(_greedy(model, tokenizer, "Lyon is in", 5))
    word = next(w for w in text.split() if w.isalnum()) if text.split() else "x"
    probes = [
        Probe("neighborhood", "Lyon is in", (word,)),
        Probe("neighborhood", "Lyon is in", ("Qqqq",)),
    ]
    found = metrics.accuracy(model, tokenizer, probes, new_tokens=5)
    assert found == [metrics.contains_answer(text, [word]), False]
    assert metrics.accuracy_change([True, True], found) == pytest.approx(1 - sum(found) / 2)
    with pytest.raises(InvalidInput, match="expected as many"):
        metrics.accuracy_change([True], [])


def _greedy(model, tokenizer, prompt, count):
    row = tokenizer(prompt)["input_ids"]
    start = len(row)
    for _ in range(count):
        with torch.no_grad():
            row.append(int(model(input_ids=torch.tensor([row])).logits[0, -1].argmax()))
    return row[start:]


def test_bad_truth_ratios_are_refused():
    one = Score([1], [-1.0], [1])
    with pytest.raises(InvalidInput, match="no perturbed answers"):
        metrics.truth_ratio(one, [])
    with pytest.raises(InvalidInput, match="expected 'paper' or 'code'"):
        metrics.truth_ratio(one, [one], mean="mode")
    with pytest.raises(InvalidInput, match="one truth ratio or more"):
        metrics.truth_score([])
    assert math.isclose(metrics.truth_ratio(one, [one]), 1)
