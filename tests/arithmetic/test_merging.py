"""TIES, DARE and sums of one tensor's deltas, against plain code."""

from __future__ import annotations

import pytest
import torch
from tests.reference import merging as plain

from emend.arithmetic import METHODS, Merging
from emend.arithmetic.merging import merged
from emend.errors import InvalidInput

SHAPE = (6, 7)
PLACES = ("a x", "b x", "c x")
WEIGHTS = (0.5, 0.2, 0.9)


def deltas(seed=0, count=3):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(SHAPE, generator=generator).double() for _ in range(count)]


def flat(tensors):
    return [tensor.flatten().tolist() for tensor in tensors]


def kept(settings, number):
    """The numbers that DARE keeps, seen in what it makes of a delta of ones."""
    ones = [torch.ones(SHAPE).double()]
    found = merged(ones, [1.0], settings, [PLACES[number]])
    return (found != 0).flatten().tolist()


@pytest.mark.parametrize("density", [0.2, 0.5, 1.0])
@pytest.mark.parametrize("normalize", [True, False])
def test_ties(density, normalize):
    settings = Merging("ties", density, normalize=normalize)
    found = merged(deltas(), WEIGHTS, settings, PLACES)
    expected = plain.ties(flat(deltas()), WEIGHTS, density, normalize=normalize)
    assert found.flatten().tolist() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("rescale", ["paper", "l1"])
@pytest.mark.parametrize("method", ["dare_linear", "dare_ties"])
def test_dare(method, rescale):
    settings = Merging(method, 0.6, seed=3, rescale=rescale)
    found = merged(deltas(), WEIGHTS, settings, PLACES)
    thinned = [
        plain.dare(one, kept(Merging("dare_linear", 0.6, seed=3), number), 0.6, rescale)
        for number, one in enumerate(flat(deltas()))
    ]
    if method == "dare_linear":
        expected = plain.weighted_sum(thinned, WEIGHTS)
    else:
        signs = plain.elected(thinned, WEIGHTS)
        expected = plain.disjoint_mean(thinned, WEIGHTS, signs, normalize=False)
    assert found.flatten().tolist() == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("method", ["linear", "task_arithmetic"])
def test_a_sum(method):
    found = merged(deltas(), WEIGHTS, Merging(method, scale=0.5), PLACES)
    expected = [0.5 * one for one in plain.weighted_sum(flat(deltas()), WEIGHTS)]
    assert found.flatten().tolist() == pytest.approx(expected, abs=1e-12)


def test_what_dare_keeps_depends_on_the_seed_and_the_place_alone():
    first = kept(Merging("dare_linear", 0.5, seed=1), 0)
    assert first == kept(Merging("dare_ties", 0.5, seed=1), 0)
    assert first != kept(Merging("dare_linear", 0.5, seed=2), 0)
    assert first != kept(Merging("dare_linear", 0.5, seed=1), 1)


def test_dare_keeps_its_density_and_the_mean_of_each_number():
    delta = torch.ones(200, 200)
    found = merged([delta], [1.0], Merging("dare_linear", 0.3), ["a x"])
    assert float((found != 0).float().mean()) == pytest.approx(0.3, abs=0.01)
    assert float(found.mean()) == pytest.approx(1.0, abs=0.03)


def test_a_vector_that_is_subtracted_counts_with_its_sign_turned():
    a, b = deltas(count=2)
    settings = Merging("ties", 0.5)
    found = merged([a, b], [0.5, -0.5], settings, PLACES[:2])
    assert torch.allclose(found, merged([a, -b], [0.5, 0.5], settings, PLACES[:2]))


def test_agreeing_vectors_are_their_own_ties_merge():
    (a,) = deltas(count=1)
    assert torch.allclose(merged([a, a], [0.3, 0.7], Merging("ties", 1.0), PLACES[:2]), a)


def test_opposite_vectors_elect_one_side_and_do_not_cancel():
    (a,) = deltas(count=1)
    a = a.abs()
    found = merged([a, -0.5 * a], [1.0, 1.0], Merging("ties", 1.0), PLACES[:2])
    assert torch.allclose(found, a)


@pytest.mark.parametrize("density", [0.0, -0.1, 1.5, float("nan")])
def test_a_density_that_is_no_share_is_refused(density):
    with pytest.raises(InvalidInput, match="density is"):
        Merging("ties", density)


def test_settings_of_no_use_and_unknown_methods_are_refused():
    with pytest.raises(InvalidInput, match="keeps all numbers"):
        Merging("linear", 0.5)
    with pytest.raises(InvalidInput, match=f"one of {', '.join(METHODS)}"):
        Merging("tie")
