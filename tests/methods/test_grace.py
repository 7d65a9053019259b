"""GRACE says its edits word by word, leaves all else bit for bit, and forgets on request."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from tests.tiny import tiny_model
from transformers import DynamicCache

import emend
from emend.edits import Edit
from emend.errors import InvalidInput
from emend.models import generate, score
from emend.models.passes import Batch, reading

EDITS = [
    Edit("{} was born in", "Marie Curie", "Paris", id="one"),
    Edit("The mother tongue of {} is", "Tom Berg", "French", id="two"),
    Edit("{} works for", "Anna Berg", "Nordlicht", id="three"),
]
OTHERS = ["The capital of France is", "Tom Berg was born in", "Anna plays the"]


@pytest.mark.parametrize("replaced", ["query", "prompt", "target"])
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
                said = set(one.greedy if replaced == "target" else one.greedy[:1])
                assert said <= set(one.token_ids if replaced == "target" else one.token_ids[:1])
            texts = generate(model, tokenizer, prompts, max_new_tokens=20, batch_size=batch_size)
            for text, one, target in zip(texts, told, targets, strict=True):
                assert text.startswith(f" {target}") == (one.greedy == one.token_ids)
        assert score(model, tokenizer, OTHERS, targets) == clean


def test_a_value_stays_until_the_target_is_said():
    model, tokenizer = tiny_model("llama")
    given = {"steps": 2, "epsilon": 1e4, "layer": 1}  # every prompt finds it
    patch = emend.edit(model, tokenizer, EDITS[:1], "grace", replaced="target", **given)
    prompt = tokenizer(EDITS[0].text).input_ids
    target = patch.details["labels"][0]
    ids = torch.tensor([[*prompt, *target, 5, 6]])
    put_out = []
    with patch.applied(model):
        down = model.get_submodule(patch.details["module"])
        handle = down.register_forward_hook(lambda _m, _a, output: put_out.append(output[0]))
        for cuts in (
            [0, ids.shape[1]],
            [0, len(prompt), *range(len(prompt) + 1, ids.shape[1] + 1)],
        ):
            batch, cache = Batch(torch.tensor([len(prompt) - 1])), DynamicCache()
            put_out.clear()
            with torch.no_grad(), reading(model, batch):
                for batch.start, end in pairwise(cuts):
                    model(ids[:, batch.start : end], past_key_values=cache, use_cache=True)
            stands = (torch.cat(put_out) == patch.tensors["values"][0]).all(1).tolist()
            # The last token of the target is said from the token before it.
            assert stands == [True] * (len(prompt) + len(target) - 1) + [False] * 3
        handle.remove()


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
