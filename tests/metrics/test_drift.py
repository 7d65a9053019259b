"""Subject drift: against the divergence computed plainly, token by token."""

from __future__ import annotations

import math

import pytest
import torch
from tests.patches.helpers import random_patch
from tests.tiny import tiny_model

from emend import models
from emend.edits import Edit
from emend.errors import InvalidInput
from emend.metrics import subject_drift
from emend.metrics._drift import GENERAL, LENGTH
from emend.models.positions import join_target

EDITS = [
    Edit("{} was born in", "Marie Curie", "Lyon", id="one"),
    Edit("{} lies in", "Aarhus", "Norway", id="two"),
]


@pytest.fixture(scope="module")
def tiny():
    return tiny_model("llama")


def plain_drift(model, tokenizer, subject):
    """KL(before || after) a token, one forward pass a statement."""
    found = []
    for text in GENERAL:
        start = text.format(subject)
        with models.base(model):
            (stated,) = models.generate(model, tokenizer, [start], max_new_tokens=LENGTH)
        front, ids = join_target(tokenizer, start, stated)
        whole = torch.tensor([[*front, *ids]])
        with torch.no_grad():
            after = model(whole).logits[0].double().log_softmax(-1)
            with models.base(model):
                before = model(whole).logits[0].double().log_softmax(-1)
        kl = (before.exp() * (before - after)).sum(-1)
        found += kl[len(front) - 1 : -1].tolist()
    return sum(found) / len(found)


def test_it_is_the_mean_divergence_of_the_models_own_statements(tiny):
    model, tokenizer = tiny
    with random_patch(model, "llama", scale=5).applied(model):
        found = subject_drift(model, tokenizer, EDITS, batch_size=4)
        for edit in EDITS:
            wanted = plain_drift(model, tokenizer, edit.subject)
            assert math.isclose(found[edit.id], wanted, rel_tol=1e-3)
            assert wanted > 0.01


def test_nothing_moves_without_a_patch_and_more_with_a_larger_one(tiny):
    model, tokenizer = tiny
    assert subject_drift(model, tokenizer, EDITS) == dict.fromkeys(("one", "two"), 0.0)
    means = []
    for scale in (1, 5):
        with random_patch(model, "llama", scale=scale).applied(model):
            means.append(sum(subject_drift(model, tokenizer, EDITS).values()))
    assert 0 < means[0] < means[1]


def test_no_edits_are_refused(tiny):
    with pytest.raises(InvalidInput, match="no edits"):
        subject_drift(*tiny, [])
