"""DINM: the located layer and the tuned change equal plain implementations; KL really acts."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from tests.tiny import tiny_model

from emend.edits import Edit, Probe
from emend.errors import InvalidInput
from emend.methods.dinm import dinm, toxic_distances
from emend.models import ModelView, generate, join_targets

UNRELATED = Probe("neighborhood", "The capital of Poland is", ("Warsaw",))
EDITS = [
    Edit("{} is a", "Tom Berg", "good friend", original="rude man", id="a", probes=(UNRELATED,)),
    Edit("Anna said that {} is a", "Tom", "kind man", original="bad friend", id="b"),
]


def states(model, prompt, answer):
    """Mean hidden states from the prompt's last token on, one row for each block."""
    ids = torch.tensor([[*prompt, *answer]])
    output = model(input_ids=ids, output_hidden_states=True)
    return torch.stack([one[0, len(prompt) - 1 :].mean(0) for one in output.hidden_states[1:]])


def plain_change(model, tokenizer, layer, steps, rate, hold):
    """The weight itself, trained on a copy by NLL + hold KL(before || after)."""
    tuned = copy.deepcopy(model)
    weight = ModelView(tuned).down_projection(layer).weight
    start = weight.detach().clone()
    optimizer = torch.optim.Adam([weight], lr=rate)
    pairs = join_targets(tokenizer, [e.text for e in EDITS], [e.target for e in EDITS])
    ((before, after),) = join_targets(tokenizer, [UNRELATED.prompt], list(UNRELATED.answers))
    row, first = torch.tensor([[*before, *after]]), len(before) - 1
    with torch.no_grad():
        expected = model(input_ids=row).logits[0, first:].log_softmax(-1)
    for _ in range(steps):
        loss = torch.zeros((), dtype=weight.dtype)
        for prompt, target in pairs:
            logits = tuned(input_ids=torch.tensor([[*prompt, *target[:-1]]])).logits[0]
            wanted = torch.tensor(target)
            loss = loss + F.cross_entropy(logits[-len(target) :], wanted) / len(pairs)
        found = tuned(input_ids=row).logits[0, first:].log_softmax(-1)
        divergence = (expected.exp() * (expected - found)).sum(-1).mean()
        optimizer.zero_grad()
        (loss + hold * divergence).backward()
        optimizer.step()
    change = weight.detach() - start
    return change.T if ModelView(model).is_transposed(layer) else change


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
@pytest.mark.parametrize("hold", [0.0, 10.0])
def test_change_is_that_of_tuning_the_weight(architecture, hold):
    model, tokenizer = tiny_model(architecture, dtype=torch.float64, scale=1.5)
    patch = dinm.edit(model, tokenizer, EDITS, layer=2, steps=4, learning_rate=1e-2, hold=hold)
    expected = plain_change(model, tokenizer, 2, 4, 1e-2, hold)
    (name,) = patch.factors
    found = patch.delta(name).double()
    # Adam divides by gradients that are nearly 0 somewhere: compare as a whole.
    assert (found - expected).norm() < 1e-2 * expected.norm()
    assert patch.config["layer"] == 2


def test_the_divergence_is_differentiated():
    """The published code computes it under no_grad, where it changes no step."""
    model, tokenizer = tiny_model("llama", dtype=torch.float64, scale=1.5)
    settings = {"layer": 2, "steps": 10, "learning_rate": 1e-2}

    def divergence(hold):
        patch = dinm.edit(model, tokenizer, EDITS, hold=hold, **settings)
        row = torch.tensor([join_targets(tokenizer, [UNRELATED.prompt], ["Warsaw"])[0][0]])
        before = model(input_ids=row).logits[0, -1].log_softmax(-1)
        with patch.applied(model):
            after = model(input_ids=row).logits[0, -1].log_softmax(-1)
        return (before.exp() * (before - after)).sum().item()

    assert divergence(100.0) < 0.3 * divergence(0.0)


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_the_layer_is_where_states_of_safe_and_unsafe_answers_differ_most(architecture):
    model, tokenizer = tiny_model(architecture, dtype=torch.float64, scale=1.5)
    view = ModelView(model)
    distances = toxic_distances(view, tokenizer, EDITS)
    expected = torch.zeros(view.num_layers, dtype=torch.float64)
    for edit in EDITS:
        pairs = join_targets(tokenizer, [edit.text] * 2, [edit.target, edit.original])
        safe, unsafe = (states(model, *pair) for pair in pairs)
        expected += (safe - unsafe).norm(dim=-1).detach() / len(EDITS)
    # The last of transformers' states is after the final norm.
    assert torch.allclose(distances[:-1], expected[:-1])
    patch = dinm.edit(model, tokenizer, EDITS, steps=1)
    assert patch.config["layer"] == int(distances.argmax())


def test_without_an_unsafe_answer_the_models_own_is_taken():
    model, tokenizer = tiny_model("llama", dtype=torch.float64, scale=1.5)
    view, edit = ModelView(model), Edit("{} is a", "Tom Berg", "good friend")
    (own,) = generate(model, tokenizer, [edit.text], max_new_tokens=24)
    given = Edit("{} is a", "Tom Berg", "good friend", original=own or None)
    found = toxic_distances(view, tokenizer, [edit])
    assert torch.equal(found, toxic_distances(view, tokenizer, [given]))


def test_a_layer_that_is_not_there_is_refused():
    model, tokenizer = tiny_model("gpt2")
    with pytest.raises(InvalidInput, match="99"):
        dinm.edit(model, tokenizer, EDITS, layer=99)
