"""GRACE says its edits word by word, leaves all else bit for bit, and forgets on request."""

from __future__ import annotations

import pytest
import torch
from tests.tiny import tiny_model

import emend
from emend.edits import Edit
from emend.errors import InvalidInput
from emend.models import generate, score

EDITS = [
    Edit("{} was born in", "Marie Curie", "Paris", id="one"),
    Edit("The mother tongue of {} is", "Tom Berg", "French", id="two"),
    Edit("{} works for", "Anna Berg", "Nordlicht", id="three"),
]
OTHERS = ["The capital of France is", "Tom Berg was born in", "Anna plays the"]


@pytest.mark.parametrize("replaced", ["query", "prompt", "all"])
@pytest.mark.parametrize("architecture", ["gpt2", "llama", "opt"])
def test_says_its_edits_in_every_way_of_asking(architecture, replaced):
    model, tokenizer = tiny_model(architecture)
    prompts, targets = [e.text for e in EDITS], [e.target for e in EDITS]
    clean = score(model, tokenizer, OTHERS, targets)
    patch = emend.edit(
        model, tokenizer, EDITS, "grace", steps=200, reach=0.02, replaced=replaced, layer=1
    )
    with patch.applied(model):
        for batch_size in (1, 8):
            told = score(model, tokenizer, prompts, targets, batch_size=batch_size)
            for one in told:
                said = set(one.greedy if replaced == "all" else one.greedy[:1])
                assert said <= set(one.token_ids if replaced == "all" else one.token_ids[:1])
            texts = generate(model, tokenizer, prompts, max_new_tokens=20, batch_size=batch_size)
            for text, one, target in zip(texts, told, targets, strict=True):
                assert text.startswith(f" {target}") == (one.greedy == one.token_ids)
        assert score(model, tokenizer, OTHERS, targets) == clean


def test_a_value_stays_for_the_whole_answer():
    model, tokenizer = tiny_model("llama")
    given = {"steps": 2, "epsilon": 1e4}  # every prompt finds it
    patch = emend.edit(model, tokenizer, EDITS[:1], "grace", replaced="all", **given)
    ids = torch.tensor([tokenizer("Marie Curie was born in Paris").input_ids])
    with torch.no_grad(), patch.applied(model):
        whole = model(ids).logits[:, -2:]
        cache = model(ids[:, :-2], use_cache=True).past_key_values
        apart = [model(ids[:, [n]], past_key_values=cache).logits for n in (-2, -1)]
        assert torch.allclose(torch.cat(apart, 1), whole, atol=1e-5)
    with torch.no_grad():
        assert not torch.allclose(model(ids).logits[:, -2:], whole, atol=0.1)


def test_goes_on_and_forgets():
    model, tokenizer = tiny_model("llama")
    given = {"method": "grace", "steps": 40, "reach": 0.02}
    first = emend.edit(model, tokenizer, EDITS[:2], **given)
    both = emend.edit(model, tokenizer, EDITS[2:], previous=first, **given)
    assert [edit.id for edit in both.edits] == ["one", "two", "three"]
    assert torch.equal(both.tensors["values"][:2], first.tensors["values"])
    changed = Edit("{} was born in", "Marie Curie", "Lyon", id="four")
    again = emend.edit(model, tokenizer, [changed], previous=both, **given)
    assert [edit.id for edit in again.edits] == ["two", "three", "four"]
    prompts, targets = [e.text for e in EDITS], [e.target for e in EDITS]
    clean = score(model, tokenizer, prompts, targets)
    with both.without("two").applied(model):
        left = score(model, tokenizer, prompts, targets)
    assert left[1] == clean[1]
    assert left[0] != clean[0]
    with both.without("one", "two", "three").applied(model):
        assert score(model, tokenizer, prompts, targets) == clean
    with pytest.raises(InvalidInput, match="go on with the settings"):
        emend.edit(model, tokenizer, EDITS[2:], previous=first, **{**given, "layer": 0})
    rome = emend.edit(model, tokenizer, EDITS[:1], "rome", templates=("{}",), steps=2)
    with pytest.raises(InvalidInput, match="expected a patch of grace"):
        emend.edit(model, tokenizer, EDITS[2:], previous=rome, **given)
    with pytest.raises(InvalidInput, match="only changes of weights"):
        emend.edit(model, tokenizer, EDITS[2:], "rome", previous=first)


def test_edits_of_one_ball_share_a_value():
    model, tokenizer = tiny_model("llama")
    same = [Edit("{} was born in", name, "Paris", id=name) for name in ("Anna", "Tom")]
    patch = emend.edit(model, tokenizer, same, "grace", steps=5, epsilon=1e4)
    assert [ball.owners for ball in patch.balls] == [[0, 1]]
    assert torch.equal(*patch.tensors["values"])


@pytest.mark.parametrize(
    "setting", [{"start": "cold"}, {"replaced": "some"}, {"epsilon": 0.0}, {"steps": 0}]
)
def test_senseless_settings_are_refused(setting):
    model, tokenizer = tiny_model("gpt2")
    with pytest.raises(InvalidInput, match=next(iter(setting))):
        emend.edit(model, tokenizer, EDITS, "grace", **setting)


def test_random_values_are_seeded():
    model, tokenizer = tiny_model("gpt2")
    given = {"method": "grace", "steps": 2, "start": "random", "seed": 3}
    one, other = (emend.edit(model, tokenizer, EDITS, **given) for _ in range(2))
    assert torch.equal(one.tensors["values"], other.tensors["values"])
