"""GRACE generates its edits, leaves all else bit for bit, and forgets on request."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
import torch
from tests.tiny import tiny_model
from transformers import DynamicCache

import emend
from emend.edits import Edit
from emend.errors import BrokenFile, InvalidInput, NumericalFailure
from emend.methods.grace import GAP, CodebookPatch, codebook
from emend.models import generate, score
from emend.models.passes import Batch, reading
from emend.patches import load_patch

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
        model, tokenizer, EDITS, "grace", steps=200, epsilon=0.02, replaced=replaced, layer=1
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


def test_a_value_replaces_the_output_until_the_target_is_generated():
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
            replaced = (torch.cat(put_out) == patch.tensors["values"][0]).all(1).tolist()
            # The last token of the target is predicted from the token before it.
            assert replaced == [True] * (len(prompt) + len(target) - 1) + [False] * 3
        handle.remove()


def test_goes_on_and_forgets():
    model, tokenizer = tiny_model("llama")
    given = {"method": "grace", "steps": 40, "epsilon": 0.02}
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


def test_edits_of_one_entry_share_a_value():
    model, tokenizer = tiny_model("llama")
    same = [Edit("{} was born in", name, "Paris", id=name) for name in ("Anna", "Tom")]
    patch = emend.edit(model, tokenizer, same, "grace", steps=5, epsilon=1e4)
    assert [entry.owners for entry in patch.entries] == [[0, 1]]
    assert torch.equal(*patch.tensors["values"])


@pytest.mark.parametrize("setting", [{"replaced": "some"}, {"epsilon": 0.0}, {"steps": 0}])
def test_senseless_settings_are_refused(setting):
    model, tokenizer = tiny_model("gpt2")
    with pytest.raises(InvalidInput, match=next(iter(setting))):
        emend.edit(model, tokenizer, EDITS, "grace", **setting)


ANNAS = tuple(Edit("{} was born in", f"Anna {name}", "Paris", id=name) for name in "abc")
MODULE = "model.layers.2.mlp.down_proj"


def on_a_line(positions, labels):
    """The entries of keys on a line, each with a first radius of 1."""
    entries = codebook(torch.tensor(positions)[:, None], labels, [1.0] * len(labels))
    return [(entry.owners, round(entry.radius, 6)) for entry in entries]


@pytest.mark.parametrize(
    ("positions", "labels", "expected"),
    [
        # Far keys have entries of their own.
        ([0.0, 2.5], [[1], [1]], [([0], 1.0), ([1], 1.0)]),
        # A near key of the same label widens the ball, where it is not within.
        ([0.0, 1.5], [[1, 2], [1, 2]], [([0, 1], 1.5)]),
        ([0.0, 0.5], [[1, 2], [1, 2]], [([0, 1], 1.0)]),
        # A near key of another label splits it.
        ([0.0, 1.5], [[1], [2]], [([0], round(0.75 - GAP, 6)), ([1], 0.75)]),
        # A split never makes a ball larger: the second is at 1.1 / 2, the first left 0.2.
        (
            [0.0, 0.4, -1.1],
            [[1], [2], [3]],
            [([0], round(0.2 - GAP, 6)), ([1], 0.2), ([2], 0.55)],
        ),
    ],
)
def test_entries_are_added_widened_and_split(positions, labels, expected):
    assert on_a_line(positions, labels) == expected


def test_labels_of_one_mean_are_not_the_same():
    """The published code compares mean token ids: 1 and 5 are 2 and 4 to it."""
    assert len(on_a_line([0.0, 0.5], [[1, 5], [2, 4]])) == 2
    assert len(on_a_line([0.0, 0.5], [[1, 5], [5, 1]])) == 2


def patch(**changes):
    given = {
        "edits": ANNAS,
        "method": "grace",
        "tensors": {
            "keys": torch.eye(3, 48) * 3,
            "values": torch.arange(96.0).reshape(3, 32),
            "radii": torch.ones(3),
        },
        "details": {"module": MODULE, "labels": [[1], [2], [3]], "replaced": "query"},
    }
    return CodebookPatch(**{**given, **changes})


def test_an_edit_taken_out_leaves_what_the_others_alone_make():
    keys = torch.tensor([[0.0], [0.5], [5.0]])
    labels = [[1], [2], [3]]
    tensors = {"keys": keys, "values": torch.ones(3, 4), "radii": torch.ones(3)}
    whole = patch(tensors=tensors, details={**patch().details, "labels": labels})
    assert [entry.radius for entry in whole.entries][:2] == pytest.approx([0.25 - GAP, 0.25])
    left = whole.without("b")
    assert [edit.id for edit in left.edits] == ["a", "c"]
    assert [entry.radius for entry in left.entries] == [1.0, 1.0]
    assert left.details["labels"] == [[1], [3]]
    assert not whole.without("a", "b", "c").entries
    assert whole.only("b").entries[0].owners == [0]


def test_saved_and_loaded(tmp_path):
    given = patch(timing={"per_edit": 0.5}, config={"steps": 3})
    found = load_patch(given.save_pretrained(tmp_path / "p"))
    assert isinstance(found, CodebookPatch)
    assert [edit.id for edit in found.edits] == ["a", "b", "c"]
    for name, tensor in given.tensors.items():
        assert torch.equal(found.tensors[name], tensor)
    for name in ("method", "config", "base", "timing", "details"):
        assert getattr(found, name) == getattr(given, name)
    assert found.card()["entries"] == 3


@pytest.mark.parametrize("what", ["label", "module", "tensor", "altered", "cut", "nan"])
def test_a_broken_codebook_is_refused(what, tmp_path):
    path = patch().save_pretrained(tmp_path / "p")
    own, blob = path / "emend.json", path / "emend_memory.safetensors"
    data = json.loads(own.read_text())
    if what == "nan":
        with pytest.raises(NumericalFailure):
            patch(tensors={**patch().tensors, "values": torch.full((3, 32), float("nan"))})
        return
    if what == "label":
        data["details"]["labels"] = [[1]]
    elif what == "module":
        del data["details"]["module"]
    elif what == "tensor":
        data["edits"] = data["edits"][:2]
    elif what == "altered":
        blob.write_bytes(
            patch(tensors=zeros())
            .save_pretrained(tmp_path / "q")
            .joinpath("emend_memory.safetensors")
            .read_bytes()
        )
    else:
        blob.write_bytes(blob.read_bytes()[:-9])
    own.write_text(json.dumps(data))
    with pytest.raises(BrokenFile) as caught:
        load_patch(path)
    assert "\n" not in str(caught.value)


def zeros():
    return {name: torch.zeros_like(tensor) for name, tensor in patch().tensors.items()}


def test_a_model_without_the_module_is_refused():
    model, _ = tiny_model("gpt2")
    with pytest.raises(InvalidInput, match="no module"):
        patch().attach(model)
    assert not any(module._forward_pre_hooks for module in model.modules())
