"""WISE: masks, clamps, thresholds, shards that are filled and merged; which memory answers."""

from __future__ import annotations

import pytest
import torch
from tests.tiny import tiny_model

import emend
from emend.edits import Edit
from emend.errors import InvalidInput
from emend.methods import wise
from emend.methods.wise._patch import SidePatch, activation_gaps
from emend.methods.wise.ties import merged
from emend.models import generate, score
from emend.patches import load_patch

NAMES = ("Marie Curie", "Anna Berg", "Tom Berg", "Anna", "Marie", "Curie Tom")
EDITS = [Edit("{} was born in", name, "Paris", id=name) for name in NAMES]
FAST = {"method": "wise", "steps": 3, "learning_rate": 50.0}


@pytest.fixture(scope="module")
def llama():
    return tiny_model("llama")


@pytest.fixture(autouse=True)
def _few_texts(monkeypatch):
    monkeypatch.setattr(wise, "IRRELEVANT", 4)


def test_changes_only_a_part_and_each_weight_a_little(llama, monkeypatch):
    monkeypatch.setattr(wise, "CLAMP", 0.01)
    patch = emend.edit(*llama, EDITS[:2], **{**FAST, "density": 0.25})
    delta = patch.tensors["delta.0"]
    assert float(delta.abs().max()) == pytest.approx(0.01)
    assert 0.15 < float((delta != 0).float().mean()) <= 0.3
    other = emend.edit(*llama, EDITS[:2], **{**FAST, "seed": 1})
    assert not torch.equal(other.tensors["delta.0"] != 0, delta != 0)


def test_answers_its_edits_with_a_threshold_below_their_gaps(llama):
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


@pytest.mark.parametrize("setting", [{"density": 0.0}, {"ratio": 0.0}, {"steps": 0}])
def test_senseless_settings_are_refused(llama, setting):
    with pytest.raises(InvalidInput, match=next(iter(setting))):
        emend.edit(*llama, EDITS, **{**FAST, **setting})


ANNAS = tuple(Edit("{} was born in", f"Anna {name}", "Paris", id=name) for name in "abc")
MODULE = "model.layers.2.mlp.down_proj"
PROMPTS = ["Marie Curie was born in", "Anna", "Anna Berg works for Nordlicht and plays the"]
TARGETS = ["Paris", "Tom Berg", "violin"]


def patch(thresholds, scale=1.0, memories=(("a", "b"), ("c",))):
    generator = torch.Generator().manual_seed(0)
    deltas = [scale * torch.randn(32, 64, generator=generator) for _ in memories]
    return SidePatch(
        edits=ANNAS,
        method="wise",
        tensors={f"delta.{n}": delta for n, delta in enumerate(deltas)},
        details={
            "module": MODULE,
            "memories": [list(owned) for owned in memories],
            "thresholds": list(thresholds),
            "activation": "silu",
        },
    )


def test_gap():
    keys, outputs = torch.eye(2, 3), torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    delta = torch.tensor([[2.0, 0.0, 0.0], [0.0, -3.0, 0.0]])
    silu = torch.nn.functional.silu
    one = torch.tensor(1.0)
    expected = [(silu(3 * one) - silu(one)).abs(), (silu(-2 * one) - silu(one)).abs()]
    torch.testing.assert_close(activation_gaps(keys, outputs, delta, "silu"), torch.stack(expected))


def test_what_is_over_no_threshold_is_answered_bit_for_bit(llama):
    model, tokenizer = llama
    clean = score(model, tokenizer, PROMPTS, TARGETS)
    with patch([1e9, 1e9]).applied(model):
        assert score(model, tokenizer, PROMPTS, TARGETS) == clean


@pytest.mark.parametrize("chosen", [0, 1])
def test_a_memory_is_the_weights_from_the_last_token_of_the_prompt_on(llama, chosen):
    model, tokenizer = llama
    memory = patch([1e-9 if n == chosen else 1e9 for n in range(2)], scale=0.3)
    delta = memory.tensors[f"delta.{chosen}"]
    module = model.get_submodule(MODULE)
    prompt = tokenizer(PROMPTS[0])["input_ids"]
    with memory.applied(model):
        (told,) = score(model, tokenizer, PROMPTS[:1], TARGETS[:1])

    def change(_module, args, output):
        changed = output.clone()
        changed[:, len(prompt) - 1 :] += args[0][:, len(prompt) - 1 :] @ delta.T
        return changed

    handle = module.register_forward_hook(change)
    with torch.no_grad():
        ids = torch.tensor([[*prompt, *told.token_ids[:-1]]])
        logits = model(ids).logits[0, len(prompt) - 1 :].log_softmax(-1)
    handle.remove()
    expected = logits[range(len(told.token_ids)), told.token_ids].tolist()
    assert told.log_probs == pytest.approx(expected, abs=1e-4)


def test_score_and_generate_agree_whatever_is_read_beside(llama):
    model, tokenizer = llama
    keys: list[float] = []
    memory = patch([1e-9, 1e9], scale=0.5)
    hook = model.get_submodule(MODULE).register_forward_hook(
        lambda _m, args, out: keys.append(
            float(activation_gaps(args[0][0, -1:], out[0, -1:], memory.tensors["delta.0"], "silu"))
        )
    )
    for prompt in PROMPTS:
        score(model, tokenizer, [prompt], ["a"])
    hook.remove()
    # Between two of the prompts' gaps, so that some are routed and some are not.
    memory = patch([sorted(keys)[1] * 1.001, 1e9], scale=0.5)
    clean = generate(model, tokenizer, PROMPTS, max_new_tokens=6)
    with memory.applied(model):
        one = generate(model, tokenizer, PROMPTS, max_new_tokens=6, batch_size=1)
        assert generate(model, tokenizer, PROMPTS, max_new_tokens=6, batch_size=8) == one
    assert sum(a == b for a, b in zip(one, clean, strict=True)) == 2


def test_memories_are_taken_out_whole(tmp_path):
    given = patch([2.0, 3.0])
    left = given.without("a", "b")
    assert left.details["memories"] == [["c"]]
    assert left.details["thresholds"] == [3.0]
    assert torch.equal(left.tensors["delta.0"], given.tensors["delta.1"])
    assert not given.without("a", "b", "c").tensors
    with pytest.raises(InvalidInput, match="share a side memory and cannot be separated"):
        given.without("a")
    found = load_patch(left.save_pretrained(tmp_path / "p"))
    assert found.details == left.details
