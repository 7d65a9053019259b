"""What a model states of a subject is kept, and a target that is probable enough is left alone."""

from __future__ import annotations

import math

import pytest
import torch
from tests.tiny import tiny_model

from emend.editing import SearchSettings, TargetLikelihood, optimise_values
from emend.editing.jobs import make_jobs
from emend.editing.objective import Objective, capture_groups
from emend.editing.preservation import LENGTH, own_statements
from emend.edits import Edit
from emend.models import ModelView
from emend.models.forward import evaluating
from emend.models.hooks import frozen

EDIT = Edit("{} was born in", "Marie Curie", "Paris")
TEMPLATES = ("{}", "He said. {}")


def tiny():
    model, tokenizer = tiny_model("llama", dtype=torch.float64, scale=2.0)
    return model, tokenizer, ModelView(model)


def test_statements_are_the_likeliest_continuations():
    model, tokenizer, view = tiny()
    (rows,) = own_statements(view, tokenizer, [[EDIT]], 4)
    begun = tokenizer("Marie Curie")["input_ids"]
    with torch.no_grad():
        best = model(torch.tensor([begun])).logits[0, -1].topk(4).indices.tolist()
        first = [row.ids[len(begun)] for row in rows]
        assert first == [token for token in best if token in first]
        assert len(first) >= 2  # one or two may name what the model answers
        for row in rows:
            assert list(row.ids[: len(begun)]) == begun
            assert (row.lookup, len(row.ids)) == (len(begun) - 1, len(begun) + LENGTH)
            greedy = model(torch.tensor([row.ids])).logits[0, len(begun) : -1].argmax(-1)
            assert list(row.ids[len(begun) + 1 :]) == greedy.tolist()
    assert own_statements(view, tokenizer, [[EDIT]], 0) == [[]]


def test_statements_that_name_the_object_are_left_out():
    _, tokenizer, view = tiny()
    (rows,) = own_statements(view, tokenizer, [[EDIT]], 4)
    said = tokenizer.decode(rows[1].ids[rows[1].lookup + 1 :]).strip()
    named = Edit(EDIT.prompt, EDIT.subject, EDIT.target, original=said)
    (kept,) = own_statements(view, tokenizer, [[named]], 4)
    assert rows[1] not in kept
    assert kept == [row for row in rows if row in kept] and kept


def terms_of(settings, delta):
    """The terms of the objective, and the same from whole forward passes."""
    model, tokenizer, view = tiny()
    jobs = make_jobs(view, tokenizer, [EDIT], TEMPLATES, statements=settings.statements)
    down = view.down_projection(1)
    with evaluating(model), frozen(model):
        groups = capture_groups(view, jobs, 1, "mlp", published_order=False)
        objective = Objective(view, jobs, [0], groups, "mlp", aim=TargetLikelihood(settings.enough))
        objective.terms(torch.zeros(1, 1, view.hidden_size, dtype=torch.float64))
        found = objective.terms(delta[None, None])

    def log_probs(row, change):
        def add(_module, _args, output):
            output = output.clone()
            output[:, row.lookup] += change
            return output

        handle = down.register_forward_hook(add)
        with torch.no_grad():
            logits = model(torch.tensor([row.ids])).logits[0]
        handle.remove()
        return logits.log_softmax(-1)

    (job,) = jobs
    nll = []
    for row in job.rows[: job.contexts]:
        read = log_probs(row, delta)[-len(row.targets) :]
        nll.append(-read.gather(-1, torch.tensor(row.targets)[:, None])[:, 0])
    (statements,) = own_statements(view, tokenizer, [[EDIT]], settings.statements)
    zero = torch.zeros_like(delta)
    places = []
    for row in statements:
        before, now = log_probs(row, zero), log_probs(row, delta)
        places.append((before.exp() * (before - now)).sum(-1)[row.lookup :])
    return found, torch.stack(nll), torch.cat(places)


@pytest.mark.parametrize("enough", [1.0, 0.5, 0.01])
def test_the_terms_are_those_of_whole_passes(enough):
    torch.manual_seed(0)
    _, _, view = tiny()
    delta = torch.randn(view.hidden_size, dtype=torch.float64)
    found, nll, kept = terms_of(SearchSettings(statements=3, enough=enough), delta)
    least = -math.log(enough)
    assert float(found.aim) == pytest.approx(float((nll - least).clamp(min=0).mean()), rel=1e-6)
    assert float(found.preserved) == pytest.approx(float(kept.mean()), rel=1e-6)
    assert len(kept) % (LENGTH + 1) == 0


def sought(**settings):
    _, tokenizer, view = tiny()
    search = SearchSettings(steps=20, optimizer="lbfgs", clamp=8, norm_penalty=0, **settings)
    (value,) = optimise_values(view, tokenizer, [EDIT], TEMPLATES, 1, search)
    return value


def test_keeping_statements_keeps_them():
    def drift(value):
        return float(terms_of(SearchSettings(statements=8), value.delta)[2].mean())

    assert drift(sought(statements=8, preserve_factor=30.0)) < 0.6 * drift(sought())


def test_a_target_that_is_probable_enough_is_left_alone():
    moved, left = sought(kl_factor=0.0), sought(kl_factor=0.0, enough=1e-6)
    assert moved.delta.norm() > 0
    assert left.delta.norm() == 0
    assert left.losses == (0.0,)
