"""WISE: masks, clamps, thresholds, shards that are filled and merged."""

from __future__ import annotations

import pytest
import torch
from tests.tiny import tiny_model

import emend
from emend.editing.ties import merged
from emend.edits import Edit
from emend.errors import InvalidInput
from emend.models import score

NAMES = ("Marie Curie", "Anna Berg", "Tom Berg", "Anna", "Marie", "Curie Tom")
EDITS = [Edit("{} was born in", name, "Paris", id=name) for name in NAMES]
FAST = {"method": "wise", "irrelevant": 4, "steps": 3, "learning_rate": 50.0}


@pytest.fixture(scope="module")
def llama():
    return tiny_model("llama")


def test_changes_only_a_part_and_each_weight_a_little(llama):
    patch = emend.edit(*llama, EDITS[:2], **{**FAST, "clamp": 0.01, "density": 0.25})
    delta = patch.tensors["delta.0"]
    assert float(delta.abs().max()) == pytest.approx(0.01)
    assert 0.15 < float((delta != 0).float().mean()) <= 0.3
    other = emend.edit(*llama, EDITS[:2], **{**FAST, "seed": 1})
    assert not torch.equal(other.tensors["delta.0"] != 0, delta != 0)


def test_says_its_edits_and_its_threshold_is_below_their_gaps(llama):
    model, tokenizer = llama
    patch = emend.edit(model, tokenizer, EDITS[:2], **{**FAST, "steps": 60})
    prompts, targets = [e.text for e in EDITS[:2]], ["Paris", "Paris"]
    clean = score(model, tokenizer, prompts, targets)
    with patch.applied(model):
        told = score(model, tokenizer, prompts, targets)
    assert all(one.total > before.total + 1 for one, before in zip(told, clean, strict=True))
    loose = emend.edit(model, tokenizer, EDITS[:2], **{**FAST, "steps": 60, "ratio": 0.44})
    assert loose.details["thresholds"][0] == pytest.approx(patch.details["thresholds"][0] / 2)


def test_shards_are_filled_and_merged(llama):
    sizes = {"shard_size": 2, "merge_every": 4}
    patch = emend.edit(*llama, EDITS[:3], **FAST, **sizes)
    assert patch.details["memories"] == [list(NAMES[:2]), [NAMES[2]]]
    four = emend.edit(*llama, EDITS[3:4], previous=patch, **FAST, **sizes)
    assert four.details["memories"] == [list(NAMES[:4])]
    apart = emend.edit(*llama, EDITS[:4], **FAST, shard_size=2, merge_every=100)
    together = emend.edit(*llama, EDITS[:4], **FAST, **sizes)
    deltas = [apart.tensors[f"delta.{n}"] for n in range(2)]
    assert torch.equal(together.tensors["delta.0"], merged(deltas, 0.53))
    more = emend.edit(*llama, EDITS[4:], previous=four, **FAST, **sizes)
    assert more.details["memories"] == [list(NAMES[:4]), list(NAMES[4:])]
    assert torch.equal(more.tensors["delta.0"], four.tensors["delta.0"])
    with pytest.raises(InvalidInput, match="go on with the layer"):
        emend.edit(*llama, EDITS[4:], previous=four, **FAST, **sizes, layer=0)


def test_a_shard_keeps_its_mask_when_others_are_merged(llama):
    """Fault 12: the mask was drawn by a position in a list, which a merge moves."""
    sizes = {"shard_size": 2, "merge_every": 4, "density": 0.2}
    begun = emend.edit(*llama, EDITS[:5], **FAST, **sizes)  # two full shards become one memory
    again = emend.edit(*llama, [EDITS[5]], previous=begun, **FAST, **sizes)
    assert again.details["memories"] == [list(NAMES[:4]), list(NAMES[4:6])]
    both = [each.tensors["delta.1"] != 0 for each in (begun, again)]
    assert float((both[0] | both[1]).float().mean()) < 0.25


def test_a_fact_in_a_shared_memory_is_corrected(llama):
    """Fault 17: edits of one shard could not be told apart, so that none could be replaced."""
    model, tokenizer = llama
    many = {**FAST, "steps": 60}
    patch = emend.edit(model, tokenizer, EDITS[:3], **many)
    right = Edit("{} was born in", NAMES[1], "Berlin", id="right")
    fixed = emend.edit(model, tokenizer, [right], previous=patch, **many)
    assert [edit.id for edit in fixed.edits] == [NAMES[0], NAMES[2], "right"]
    assert fixed.details["memories"] == [[NAMES[0], NAMES[2], "right"]]
    prompts = [edit.text for edit in fixed.edits for _ in range(2)]
    with fixed.applied(model):
        found = score(model, tokenizer, prompts, ["Paris", "Berlin"] * 3)
    paris, berlin = [one.total for one in found[::2]], [one.total for one in found[1::2]]
    wanted = [p > b for p, b in zip(paris, berlin, strict=True)]
    assert wanted == [True, True, False]


def test_only_the_memory_of_a_corrected_fact_is_written_again(llama):
    sizes = {"shard_size": 2, "merge_every": 100}
    patch = emend.edit(*llama, EDITS[:4], **FAST, **sizes)
    again = Edit(EDITS[2].prompt, EDITS[2].subject, "Berlin", id=EDITS[2].id)
    fixed = emend.edit(*llama, [again], previous=patch, **FAST, **sizes)
    assert fixed.details["memories"] == [list(NAMES[:2]), [NAMES[3], NAMES[2]]]
    assert torch.equal(fixed.tensors["delta.0"], patch.tensors["delta.0"])


@pytest.mark.parametrize("setting", [{"density": 0.0}, {"kept": 2.0}, {"steps": 0}])
def test_senseless_settings_are_refused(llama, setting):
    with pytest.raises(InvalidInput, match=next(iter(setting))):
        emend.edit(*llama, EDITS, **{**FAST, **setting})
