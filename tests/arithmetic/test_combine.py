"""Formulas over whole checkpoints: what is written is what the tensors in memory give."""

from __future__ import annotations

import pytest
import torch
from tests.arithmetic.checkpoints import save_base, save_tuned, tensors_of

from emend.arithmetic import Merging, combine, load_vector, vector
from emend.arithmetic.merging import merged
from emend.errors import EmendError, InvalidInput, NumericalFailure, UnknownName
from emend.models import load, weights_hash
from emend.patches import WeightPatch, load_patch


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("vectors")


@pytest.fixture(scope="module")
def base(folder):
    return save_base(folder / "base", shards=True)


@pytest.fixture(scope="module")
def vectors(base, folder):
    """Three dense vectors."""
    found = {}
    for seed, name in enumerate("abc"):
        tuned = save_tuned(base, folder / f"tuned_{name}", seed)
        vector(base, tuned, folder / name)
        found[name] = folder / name
    return found


@pytest.fixture(scope="module")
def patches(base, folder):
    """Two patches of rank 2, for the same base."""
    found = {}
    for seed, name in enumerate("pq"):
        tuned = save_tuned(base, folder / f"tuned_{name}", 10 + seed, rank=2)
        vector(base, tuned, folder / name, rank=2)
        found[name] = folder / name
    return found


def deltas(folder):
    return tensors_of(folder, "vector")


@pytest.mark.parametrize("method", ["linear", "ties", "dare_linear", "dare_ties"])
def test_a_checkpoint_is_the_merge_in_memory(base, vectors, tmp_path, method):
    settings = Merging(method, seed=5, scale=0.9)
    made = combine("0.4*a + 0.3*b - c", base, vectors, tmp_path / "m", settings=settings)
    parts = [deltas(vectors[name]) for name in "abc"]
    for name, tensor in tensors_of(tmp_path / "m").items():
        own = [part[name].clone() for part in parts]
        places = [f"{vector} {name}" for vector in "abc"]
        expected = tensors_of(base)[name] + merged(own, [0.4, 0.3, -1.0], settings, places)
        assert torch.allclose(tensor, expected, atol=1e-6)
    assert made.weights == {"a": 0.4, "b": 0.3, "c": -1.0}
    kept = {path.name for path in base.iterdir()} | {"emend_merged.json"}
    assert {path.name for path in (tmp_path / "m").iterdir()} == kept
    model, _ = load(str(tmp_path / "m"))
    assert weights_hash(model) != weights_hash(load(str(base))[0])


def test_an_analogy_and_a_vector_out(base, vectors, tmp_path):
    combine("c + (b - a)", base, vectors, tmp_path / "v", output="vector")
    a, b, c = (deltas(vectors[name]) for name in "abc")
    found = load_vector(tmp_path / "v")
    for name in found.places:
        assert torch.allclose(found.delta(name), c[name] + b[name] - a[name], atol=1e-6)
    combine("v", base, {"v": tmp_path / "v"}, tmp_path / "m")  # which is a vector like others
    combine("c + (b - a)", base, vectors, tmp_path / "n")
    one, other = tensors_of(tmp_path / "m"), tensors_of(tmp_path / "n")
    assert all(torch.allclose(one[name], other[name], atol=1e-6) for name in one)


def test_patches_add_by_their_own_algebra(base, patches, tmp_path):
    made = combine("0.5*p - 2*q", base, patches, tmp_path / "s", output="patch")
    assert made.error == 0.0
    found = load_patch(tmp_path / "s")
    p, q = (load_patch(patches[name]) for name in "pq")
    assert isinstance(found, WeightPatch)
    for module in p.factors:
        expected = 0.5 * p.delta(module) - 2 * q.delta(module)
        assert torch.allclose(found.delta(module), expected, atol=1e-6)
    model, _ = load(str(base))
    with found.applied(model):  # the hash of the base fits
        pass
    made = combine("0.5*p - 2*q", base, patches, tmp_path / "t", output="patch", rank=2)
    assert 0 < made.error < 1
    assert load_patch(tmp_path / "t").rank == 2


def test_patches_and_vectors_mix(base, patches, vectors, tmp_path):
    combine("a + p", base, {**vectors, **patches}, tmp_path / "m")
    p = load_patch(patches["p"])
    module = next(iter(p.factors))
    name = f"{module}.weight"
    expected = tensors_of(base)[name] + deltas(vectors["a"])[name] + p.delta(module)
    assert torch.allclose(tensors_of(tmp_path / "m")[name], expected, atol=1e-5)


def test_a_transposed_patch_is_written_as_the_base_has_it(tmp_path):
    base = save_base(tmp_path / "base", "gpt2")
    tuned = save_tuned(base, tmp_path / "tuned", 1, rank=2, only=".mlp.")
    vector(base, tuned, tmp_path / "p", rank=2)
    combine("p", base, {"p": tmp_path / "p"}, tmp_path / "m")
    found = tensors_of(tmp_path / "m")
    expected = tensors_of(tuned)
    assert all(torch.allclose(found[name], one, atol=1e-4) for name, one in expected.items())


def test_an_adapter_of_another_maker_is_merged(base, tmp_path):
    """As abliteration publishes them: rank 1 on the projections that write into the stream."""
    tuned = save_tuned(base, tmp_path / "tuned", 3, rank=1, only="o_proj")
    vector(base, tuned, tmp_path / "p", rank=1)
    (tmp_path / "p" / "emend.json").unlink()  # what is left is an adapter of PEFT
    combine("p", base, {"p": tmp_path / "p"}, tmp_path / "m")
    found, expected = tensors_of(tmp_path / "m"), tensors_of(tuned)
    assert all(torch.allclose(found[name], one, atol=1e-5) for name, one in expected.items())


def test_a_ties_merge_of_patches_is_compressed(base, patches, tmp_path):
    settings = Merging("ties", 0.5)
    made = combine(
        "p + q", base, patches, tmp_path / "s", settings=settings, output="patch", rank=4
    )
    assert 0 < made.error < 1
    whole = combine("p + q", base, patches, tmp_path / "m", settings=settings)
    assert whole.norm == pytest.approx(made.norm, rel=1e-6)


def test_the_result_does_not_depend_on_the_shards(base, vectors, patches, tmp_path):
    other = save_base(tmp_path / "whole")
    settings = Merging("dare_ties", 0.5, seed=1)
    for number, one in enumerate((base, other)):
        combine("a + b", one, vectors, tmp_path / f"m{number}", settings=settings)
    first, second = tensors_of(tmp_path / "m0"), tensors_of(tmp_path / "m1")
    assert all(torch.equal(first[name], second[name]) for name in first)


def refused(said, kind, base, tmp_path, formula, paths, **more):
    with pytest.raises(kind, match=said) as caught:
        combine(formula, base, paths, tmp_path / "m", **more)
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, EmendError)
    assert not (tmp_path / "m").exists()


def test_what_does_not_fit_is_refused_in_one_line(base, vectors, patches, tmp_path):
    refused("unknown vector 'z'", UnknownName, base, tmp_path, "a + z", vectors)
    rank = {"rank": 3}
    refused("output='patch' alone", InvalidInput, base, tmp_path, "a", vectors, **rank)
    other = save_base(tmp_path / "gpt2", "gpt2")
    refused("is not in .*gpt2", InvalidInput, other, tmp_path, "a", vectors)
    tuned = save_tuned(base, tmp_path / "tuned", 7)
    refused("hash .*give the base", InvalidInput, tuned, tmp_path, "a", vectors)
    refused("hash .*give the base", InvalidInput, tuned, tmp_path, "p", patches)
    narrow = save_base(tmp_path / "half", dtype=torch.float16)
    vector(narrow, save_tuned(narrow, tmp_path / "other", 1), tmp_path / "h")
    large = {"formula": "1e9*h", "paths": {"h": tmp_path / "h"}}
    refused("beyond the range of torch.float16", NumericalFailure, narrow, tmp_path, **large)
