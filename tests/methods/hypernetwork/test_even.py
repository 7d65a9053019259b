"""The objective "even": the gradients that a network reads, and a network that learns it."""

from __future__ import annotations

import math
import random

import pytest
import torch
from tests.tiny import tiny_model

import emend
from emend.editing.gradients import linear_modules, mlp_modules, token_gradients
from emend.edits import Edit, Probe
from emend.errors import InvalidInput
from emend.lab.speech import OCCUPATIONS, PRONOUN_SENTENCES
from emend.methods import trainer
from emend.methods.hypernetwork._even import (
    even_gradients,
    mean_log_probs,
    rows_to_read,
    symmetric_divergence,
)
from emend.methods.hypernetwork._training import draw_episode
from emend.models import ModelView, load, score

EDITS = [
    Edit("{} is", "The capital of France", "Paris now", "in Poland"),
    Edit("{} was", "Marie Curie", "Danish", "a café"),
]


def test_the_divergence_is_symmetric_and_zero_where_even():
    found = symmetric_divergence(torch.tensor([-1.0, -2.0, -1.5, -1.0, -1.0, -2.0]))
    p, q = math.exp(-2.0), math.exp(-1.0)
    assert found[0].item() == 0
    assert found[1].item() == pytest.approx(p * math.log(p / q) + q * math.log(q / p), abs=1e-6)
    assert symmetric_divergence(torch.tensor([-1.0, -2.0])) == symmetric_divergence(
        torch.tensor([-2.0, -1.0])
    )


def test_gradients_equal_those_of_a_plain_backward_pass():
    model, tokenizer = tiny_model("llama")
    view = ModelView(model)
    rows = rows_to_read(tokenizer, EDITS, "even")
    assert len(rows) == 4
    modules = linear_modules(view, [mlp_modules(view, 1)[1]])
    read = even_gradients(view, rows, token_gradients(view, rows, modules))
    ((name, found),) = read.items()
    assert set(found.rows.tolist()) == {0, 1}
    weight = modules[name].weight
    for number in (0, 1):
        means = []
        for row in (rows[number], rows[number + 2]):
            logits = model(torch.tensor([row.ids])).logits[0].log_softmax(-1)
            count = len(row.targets)
            each = [logits[len(row.ids) - count + n, token] for n, token in enumerate(row.targets)]
            means.append(torch.stack(each).mean())
        loss = (means[0].exp() - means[1].exp()) * (means[0] - means[1])
        (expected,) = torch.autograd.grad(loss, weight)
        mine = found.rows == number
        change = found.gradients[mine].T @ found.inputs[mine]  # (out, in)
        torch.testing.assert_close(change, expected, atol=1e-6, rtol=1e-3)


def test_an_edit_without_an_original_is_refused():
    _, tokenizer = tiny_model("llama")
    bare = [Edit("{} is", "Lyon", "in France")]
    with pytest.raises(InvalidInput, match="has no original, expected the answer"):
        rows_to_read(tokenizer, bare, "even")
    episode = draw_episode(tokenizer, EDITS, 2, random.Random(0), "even")
    assert episode.asked_of == [0, 1, 0, 1]
    logits = torch.zeros(sum(len(row.targets) for row in episode.asked), 500)
    expected = torch.full((4,), -math.log(500))
    torch.testing.assert_close(mean_log_probs(logits, episode.asked), expected)


def pronouns(occupations):
    return [
        Edit(
            opening,
            occupation,
            "he",
            "she",
            probes=(Probe("neighborhood", "Therefore the shop was", ("closed.",)),),
        )
        for occupation in occupations
        for opening, _ in PRONOUN_SENTENCES[:3]
    ]


def log_ratio(model, tokenizer, edits):
    texts = [edit.text for edit in edits]
    he, she = (score(model, tokenizer, texts, [word] * len(texts)) for word in ("he", "she"))
    return sum(abs(a.total - b.total) for a, b in zip(he, she, strict=True)) / len(texts)


@pytest.mark.slow
def test_a_network_learns_to_make_pronouns_even(tmp_path):
    model, tokenizer = load("lab/gptneo")
    names = list(OCCUPATIONS)
    made = trainer("malmen")
    settings = made.settings_type(objective="even", steps=20, validate_every=10, batch_size=8)
    edits = pronouns(names[:14]), pronouns(names[14:17])
    made.train(model, tokenizer, *edits, tmp_path, settings)
    unseen = pronouns(names[17:])
    patch = emend.edit(model, tokenizer, unseen, "malmen", state=str(tmp_path))
    before = log_ratio(model, tokenizer, unseen)
    with patch.applied(model):
        assert log_ratio(model, tokenizer, unseen) < 0.8 * before
