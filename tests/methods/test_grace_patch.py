"""The balls of a codebook: added, widened, split; and what an edit taken out leaves."""

from __future__ import annotations

import json

import pytest
import torch
from tests.tiny import tiny_model

from emend.edits import Edit
from emend.errors import BrokenFile, InvalidInput, NumericalFailure
from emend.methods.grace._patch import GAP, Balls, CodebookPatch
from emend.patches import load_patch

EDITS = tuple(Edit("{} was born in", f"Anna {name}", "Paris", id=name) for name in "abc")
MODULE = "model.layers.2.mlp.down_proj"


def balls(positions, labels, radius=1.0):
    """Balls of keys on a line."""
    keys = torch.tensor(positions)[:, None]
    return [
        (ball.owners, round(ball.radius, 6))
        for ball in Balls(keys, labels, [radius] * len(labels)).all
    ]


def test_far_keys_have_balls_of_their_own():
    assert balls([0.0, 2.5], [[1], [1]]) == [([0], 1.0), ([1], 1.0)]


def test_a_near_key_of_the_same_label_widens_the_ball():
    assert balls([0.0, 1.5], [[1, 2], [1, 2]]) == [([0, 1], 1.5)]
    assert balls([0.0, 0.5], [[1, 2], [1, 2]]) == [([0, 1], 1.0)]


def test_a_near_key_of_another_label_splits_the_ball():
    assert balls([0.0, 1.5], [[1], [2]]) == [([0], round(0.75 - GAP, 6)), ([1], 0.75)]


def test_a_split_never_makes_a_ball_larger():
    # The second split is at 1.1 / 2, where the first left 0.2.
    found = balls([0.0, 0.4, -1.1], [[1], [2], [3]])
    assert found == [([0], round(0.2 - GAP, 6)), ([1], 0.2), ([2], 0.55)]


def test_labels_of_one_mean_are_not_the_same():
    """The published code compares mean token ids: 1 and 5 are 2 and 4 to it."""
    assert len(balls([0.0, 0.5], [[1, 5], [2, 4]])) == 2
    assert len(balls([0.0, 0.5], [[1, 5], [5, 1]])) == 2


def patch(**changes):
    given = {
        "edits": EDITS,
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
    assert [ball.radius for ball in whole.balls][:2] == pytest.approx([0.25 - GAP, 0.25])
    left = whole.without("b")
    assert [edit.id for edit in left.edits] == ["a", "c"]
    assert [ball.radius for ball in left.balls] == [1.0, 1.0]
    assert left.details["labels"] == [[1], [3]]
    assert not whole.without("a", "b", "c").balls
    assert whole.only("b").balls[0].owners == [0]


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
