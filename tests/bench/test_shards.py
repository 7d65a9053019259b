"""Key covariances by shards on a real local Ray: the sums are those of one process."""

from __future__ import annotations

import importlib.util

import pytest
import torch
from tests.tiny import TEXT, tiny_model

from emend.bench import RayEngine, RayShards
from emend.editing.collecting import collect_covariance
from emend.editing.sources import Texts
from emend.editing.sums import Sums
from emend.errors import EngineFailure, MissingExtra
from emend.models import ModelView

PACKED = Texts(TEXT * 3, packed=True)


def collected(view, tokenizer, **given):
    return collect_covariance(
        view, tokenizer, PACKED, [0, 2], dtype=torch.float64, window=9, batch_size=1, **given
    )


def assert_equal(found, local):
    for layer, one in local.items():
        assert torch.allclose(found[layer].matrix, one.matrix, rtol=1e-13, atol=1e-15)
        assert found[layer].note == one.note


def test_parts_that_are_added_up_here_are_the_whole():
    """Without Ray: each batch is a shard of its own, and the bounds are of the first one."""
    model, tokenizer = tiny_model("llama")
    view = ModelView(model)
    local = collected(view, tokenizer)

    def shards(sums, batches):
        sums.run(next(batches))
        for batch in batches:
            part = sums.part()
            assert part.bounds == sums.bounds != {}
            part.run(batch)
            for layer in sums.layers:
                sums.add(layer, part.matrices[layer], part.left_out[layer])

    assert_equal(collected(view, tokenizer, shards=shards), local)


def test_the_first_batch_decides_what_is_massive_in_all_shards():
    model, _ = tiny_model("llama")
    whole = Sums(ModelView(model), [1], torch.float64, {1: 1e-9})
    assert whole.part().bounds == {1: 1e-9}


def test_shards_on_ray_give_what_one_process_gives(tmp_path):
    pytest.importorskip("ray", reason="ray is not installed")
    pytest.importorskip("ray.data", reason="ray's data library is not installed")
    model, tokenizer = tiny_model("llama")
    view = ModelView(model)
    local = collected(view, tokenizer)
    found = collected(view, tokenizer, shards=RayShards(RayEngine(workers=2)), cache=tmp_path)
    assert_equal(found, local)
    again = collected(view, tokenizer, cache=tmp_path)  # the cache is shared by both ways
    assert all(one.file is not None for one in again.values())


@pytest.mark.skipif(importlib.util.find_spec("ray") is not None, reason="ray is installed")
def test_without_ray_the_extra_is_named():
    model, tokenizer = tiny_model("llama")
    with pytest.raises(MissingExtra, match=r"emend\[ray\]"):
        collected(ModelView(model), tokenizer, shards=RayShards())


@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed")
def test_a_cluster_that_does_not_answer_is_one_line():
    model, tokenizer = tiny_model("llama")
    with pytest.raises(EngineFailure, match="nothing answers at"):
        collected(ModelView(model), tokenizer, shards=RayShards(RayEngine(address="127.0.0.1:9")))
