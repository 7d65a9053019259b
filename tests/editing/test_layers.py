"""Fault 1: a layer counted from the end is the same layer, everywhere a layer is asked for."""

from __future__ import annotations

import pytest
import torch
from tests.tiny import TEXT, tiny_model

from emend.editing import SearchSettings, collect_covariance, optimise_values, subject_keys
from emend.editing.covariance import key_covariance
from emend.editing.memory import estimate_covariance, estimate_edit
from emend.editing.sources import texts_for
from emend.edits import Edit
from emend.errors import InvalidInput, UnsupportedModel
from emend.locate import Memories, suppress
from emend.models import ModelView
from emend.models.replay import adds_directly, capture_blocks

EDITS = [Edit("{} was born in", "Marie Curie", "Paris")]


@pytest.fixture(scope="module")
def made():
    model, tokenizer = tiny_model("llama", layers=4)
    return ModelView(model), tokenizer


@pytest.mark.parametrize("layers", [[-1, 1], [1, -1], [3, -1, 1, 3, -3]])
def test_covariances(made, layers, tmp_path):
    """Fault 1: the pass stopped before the last block, and zeros were kept as its covariance."""
    view, tokenizer = made
    expected = collect_covariance(view, tokenizer, TEXT, [1, 3])
    found = collect_covariance(view, tokenizer, TEXT, layers, cache=tmp_path)
    assert sorted(found) == [1, 3]
    assert all(torch.equal(found[layer].matrix, expected[layer].matrix) for layer in (1, 3))
    later = collect_covariance(view, tokenizer, TEXT, [3], cache=tmp_path)
    assert torch.equal(later[3].matrix, expected[3].matrix)
    assert len(list(tmp_path.glob("*.safetensors"))) == 2


def test_negative_layers_of_a_covariance(made, tmp_path, monkeypatch):
    """Fault 1."""
    monkeypatch.setenv("EMEND_CACHE", str(tmp_path))
    view, tokenizer = made
    for _ in range(2):  # collected, and read again
        covariance = key_covariance(view, tokenizer, [-1, 1], texts_for(view, tokenizer, TEXT))
        assert float(covariance.matrix(3).diagonal().min()) > 0


def test_a_layer_that_no_token_passes_is_refused(made, tmp_path):
    """Fault 1: a sum over no tokens is neither kept nor returned."""
    view, tokenizer = made
    skipped = view.layers[2]
    run = skipped.forward
    skipped.forward = lambda hidden_states, **_: hidden_states
    try:
        with pytest.raises(UnsupportedModel, match="layer 2"):
            collect_covariance(view, tokenizer, TEXT, [1, 2, 3], cache=tmp_path)
    finally:
        skipped.forward = run
    assert not list(tmp_path.iterdir())


def test_keys_and_values(made):
    """Fault 1."""
    view, tokenizer = made
    found = subject_keys(view, tokenizer, EDITS, ["{}"], [-1, 1])
    expected = subject_keys(view, tokenizer, EDITS, ["{}"], [1, 3])
    assert sorted(found) == [1, 3]
    assert all(torch.equal(found[layer].keys, expected[layer].keys) for layer in (1, 3))
    settings = SearchSettings(steps=2, learning_rate=0.5, norm_penalty=1e-3)
    last, same = (
        optimise_values(view, tokenizer, EDITS, ["{}"], layer, settings)[0] for layer in (3, -1)
    )
    assert torch.equal(last.target, same.target)


def test_estimates(made):
    """Fault 1."""
    view, _ = made
    assert estimate_edit(view, 3, 2, [-1]) == estimate_edit(view, 3, 2, [3])
    one = estimate_covariance(view, [3], torch.float32, 64)
    assert estimate_covariance(view, [3, -1], torch.float32, 64) == one


def test_what_is_looked_at_in_a_model(made):
    """Fault 1: layer 7 of a model of four was taken for layer 3."""
    view, tokenizer = made
    memories = Memories(view, tokenizer, TEXT, layers=[-1], top=2)
    assert memories.unit(-1, 5).layer == 3
    assert memories.strongest(-1, 2) == memories.strongest(3, 2)
    with pytest.raises(InvalidInput, match="was not looked at"):
        memories.strongest(1, 2)
    for layer in (7, -5):
        with pytest.raises(InvalidInput, match="4 blocks"), suppress(view, [(layer, 0)]):
            pass
        with pytest.raises(InvalidInput, match="4 blocks"):
            capture_blocks(view, [[1, 2, 3]], [1], layer)
        with pytest.raises(InvalidInput, match="4 blocks"):
            adds_directly(view, layer)
