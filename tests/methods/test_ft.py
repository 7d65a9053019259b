from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from tests.tiny import tiny_model

from emend.editing.preservation import preserved_batches
from emend.edits import Edit
from emend.errors import InvalidInput
from emend.methods import ft as module
from emend.methods.ft import ft
from emend.models import ModelView, join_targets, score
from emend.models.hooks import changing

EDITS = [
    Edit("{} was born in", "Marie Curie", "Paris", id="first"),
    Edit("The mother tongue of {} is", "Tom Berg", "French", id="second"),
]


def plain_fine_tuning(model, tokenizer, objective, layers, steps, rate, box):
    """The weights themselves, trained on a copy, one edit at a time through the whole model."""
    model = copy.deepcopy(model)
    view = ModelView(model)
    weights = [view.down_projection(layer).weight for layer in layers]
    start = [weight.detach().clone() for weight in weights]
    optimizer = torch.optim.Adam(weights, lr=rate)
    pairs = join_targets(tokenizer, [e.text for e in EDITS], [e.target for e in EDITS])
    for _ in range(steps):
        loss = torch.zeros(())
        for prompt, target in pairs:
            wanted = torch.tensor(target)
            if objective == "ft-m":
                ids = torch.tensor([[*prompt, *target[:-1]]])
                logits = model(input_ids=ids).logits[0, -len(target) :]
            else:
                last = model(input_ids=torch.tensor([prompt])).logits[0, -1]
                logits = last.expand(len(target), -1)
            loss = loss + F.cross_entropy(logits, wanted) / len(pairs)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if box is not None:
            with torch.no_grad():
                for weight, first in zip(weights, start, strict=True):
                    weight.copy_(weight.clamp(first - box, first + box))
    changes = [w.detach() - first for w, first in zip(weights, start, strict=True)]
    return [c.T if view.is_transposed(n) else c for c, n in zip(changes, layers, strict=True)]


@pytest.mark.parametrize("objective", ["ft-m", "ft-l"])
@pytest.mark.parametrize("architecture", ["gpt2", "llama", "gpt_neo"])
@pytest.mark.parametrize(("layers", "box"), [((2,), None), ((1, 3), None), ((1,), 1e-3)])
def test_change_is_that_of_training_the_weights(architecture, objective, layers, box) -> None:
    model, tokenizer = tiny_model(architecture, dtype=torch.float64, scale=1.5)
    settings = {"objective": objective, "layers": layers, "box": box, "steps": 5, "original": True}
    patch = ft.edit(model, tokenizer, EDITS, learning_rate=1e-3, **settings)
    expected = plain_fine_tuning(model, tokenizer, objective, layers, 5, 1e-3, box)
    view = ModelView(model)
    for layer, change in zip(layers, expected, strict=True):
        found = patch.delta(view.name_of(view.down_projection(layer)))
        # Adam takes the sign of gradients that are nothing but rounding.
        assert (found - change).norm() < 2e-2 * change.norm()
        if box is not None:
            assert found.abs().max() <= box


def test_targets_become_likelier_until_there_is_nothing_to_learn() -> None:
    model, tokenizer = tiny_model("llama")
    with torch.no_grad():
        model.model.norm.weight.mul_(20)  # or else no hidden state gives certainty
    settings = {"learning_rate": 0.02, "original": True}
    patch = ft.edit(model, tokenizer, EDITS, steps=60, **settings)
    with patch.applied(model):
        scores = score(model, tokenizer, [e.text for e in EDITS], [e.target for e in EDITS])
    assert all(one.mean > -0.05 for one in scores)
    longer = ft.edit(model, tokenizer, EDITS, steps=200, **settings)
    again = ft.edit(model, tokenizer, EDITS, steps=400, **settings)
    (name,) = longer.factors
    assert torch.equal(longer.delta(name), again.delta(name))


def test_the_published_form_is_not_the_default(monkeypatch) -> None:
    model, tokenizer = tiny_model("llama", layers=12)
    held: list[int] = []

    def recorded(*given: Any, **settings: Any) -> Any:
        held.append(settings["statements"] + settings["others"])
        return preserved_batches(*given, **settings)

    monkeypatch.setattr(module, "preserved_batches", recorded)
    default, original = (
        ft.edit(model, tokenizer, EDITS, original=one, steps=1).config for one in (False, True)
    )
    assert (default["layers"], original["layers"]) == ((2,), (8,))
    assert (default["learning_rate"], original["learning_rate"]) == (5e-3, 5e-4)
    assert held == [8, 0]


def test_what_is_held_changes_less_and_targets_that_are_enough_are_left_alone() -> None:
    model, tokenizer = tiny_model("llama", dtype=torch.float64)
    with torch.no_grad():
        model.model.norm.weight.mul_(20)
    view = ModelView(model)
    (held,) = preserved_batches(view, tokenizer, EDITS, 1, statements=4, others=0)

    def tuned(**settings: Any) -> tuple[float, list[float]]:
        chosen = {"layers": (1,), "steps": 100, "learning_rate": 0.01, **settings}
        patch = ft.edit(model, tokenizer, EDITS, **chosen)
        with patch.applied(model), torch.no_grad():
            found = score(model, tokenizer, [e.text for e in EDITS], [e.target for e in EDITS])
            module = view.down_projection(1)
            delta = patch.delta(view.name_of(module))
        with changing(module, delta), torch.no_grad():
            return float(held.divergence(view)), [math.exp(one.mean) for one in found]

    kept, chances = tuned()
    lost, without = tuned(hold=0.0)
    assert min(chances) > 0.7 and min(without) > 0.7
    assert kept < 0.5 * lost
    assert max(chances) < max(tuned(original=True)[1])


def test_bad_settings_are_refused() -> None:
    model, tokenizer = tiny_model("gpt2")
    for settings in (
        {"layers": (9,)},
        {"layers": ()},
        {"steps": 0},
        {"box": 0.0},
        {"objective": "x"},
    ):
        with pytest.raises(InvalidInput):
            ft.edit(model, tokenizer, EDITS, **settings)
