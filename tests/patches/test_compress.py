from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tests.patches.helpers import MODULES, logits, random_patch
from tests.tiny import tiny_model

from emend.errors import InvalidInput
from emend.patches import Dense, load_patch

NAME = MODULES["llama"].format(1)


def _error(patch, small, name=NAME):
    whole = patch.delta(name).double()
    return float((whole - small.delta(name).double()).norm() / whole.norm())


def test_rank_takes_the_best_approximation_and_tells_its_error():
    model, _ = tiny_model("llama")
    patch = random_patch(model, "llama", layers=(1, 2), ranks=(6, 2))
    small = patch.compress(rank=3)
    assert {name: f.rank for name, f in small.factors.items()} == {
        NAME: 3,
        MODULES["llama"].format(2): 2,
    }
    values = torch.linalg.svdvals(patch.delta(NAME).double())
    best = float(values[3:].norm() / values.norm())
    assert small.compression[NAME] == pytest.approx(best, rel=1e-4)
    assert small.compression[NAME] == pytest.approx(_error(patch, small), rel=1e-4)
    assert small.compression[MODULES["llama"].format(2)] == 0.0  # as it was
    assert small.card()["compression"] == small.compression
    assert "compression" not in patch.card()


def test_tolerance_takes_the_fewest_rows_that_keep_to_it():
    model, _ = tiny_model("llama")
    patch = random_patch(model, "llama", ranks=(8,))
    small = patch.compress(tolerance=0.5)
    assert 1 < small.rank < 8
    assert small.compression[NAME] <= 0.5
    assert patch.compress(rank=small.rank - 1).compression[NAME] > 0.5
    assert patch.compress(rank=8, tolerance=0.5).rank == small.rank
    with pytest.raises(InvalidInput, match="relative error") as caught:
        patch.compress(rank=1, tolerance=0.01)
    assert "\n" not in str(caught.value)


def test_without_bounds_nothing_is_lost(tmp_path):
    model, _ = tiny_model("llama")
    patch = random_patch(model, "llama", ranks=(2,), edits=())
    tripled = patch + patch + patch
    small = tripled.compress()
    assert (tripled.rank, small.rank) == (6, 2)
    assert small.compression[NAME] < 1e-6
    with tripled.applied(model):
        expected = logits(model)
    with small.applied(model):
        torch.testing.assert_close(logits(model), expected, atol=1e-4, rtol=1e-5)
    small.save_pretrained(tmp_path / "small")
    assert load_patch(tmp_path / "small").compression == small.compression
    assert (small + patch).compression == {}
    generator = torch.Generator().manual_seed(0)
    dense = replace(patch, factors={NAME: Dense(torch.randn(32, 64, generator=generator))})
    assert dense.compress(rank=4).rank == 4
    assert dense.compress().rank == 32


def test_rows_belong_to_no_edit_any_more():
    model, _ = tiny_model("llama")
    patch = random_patch(model, "llama", ranks=(6,))
    with pytest.raises(InvalidInput, match="shared by all edits"):
        patch.compress(rank=2).without("one")
    assert patch.compress(rank=6).without("one").rank == 3  # nothing to gain: left as it was
    one = patch.only("one").compress(rank=1)
    assert (one + patch.only("two")).without("two").rank == 1  # a single edit owns all its rows


def test_bounds_that_make_no_sense():
    model, _ = tiny_model("llama")
    patch = random_patch(model, "llama")
    for bad in ({"rank": 0}, {"rank": -2}, {"rank": True}):
        with pytest.raises(InvalidInput, match="rank is"):
            patch.compress(**bad)
    for tolerance in (-0.1, 1.0, float("nan")):
        with pytest.raises(InvalidInput, match="tolerance is"):
            patch.compress(tolerance=tolerance)
