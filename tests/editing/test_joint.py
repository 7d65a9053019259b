from __future__ import annotations

import pytest
import torch
from tests.reference import closed_form as reference

from emend.editing.joint import Projector, inverse, solve_jointly
from emend.editing.nullspace import null_space, spectrum_of
from emend.errors import NumericalFailure
from emend.patches import Dense, LowRank

INNER, WIDTH = 24, 16


def problem(count: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(count)
    tokens = torch.randn(200, INNER, generator=generator, dtype=torch.float64)
    tokens = tokens * torch.logspace(0, -2, INNER, dtype=torch.float64)
    keys = torch.randn(count, INNER, generator=generator, dtype=torch.float64)
    return tokens.T @ tokens / 200, keys, torch.randn(count, WIDTH, generator=generator).double()


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found.double() - expected).norm() / expected.norm())


@pytest.mark.parametrize("count", [1, 5, 16, 23, 24, 60])
def test_memit_in_either_form(count) -> None:
    prior, keys, residuals = problem(count)
    expected = reference.memit_update(keys.T, residuals.T, prior, 7.0)
    for form in ("dual", "direct", None):
        change = solve_jointly(inverse(prior, 0.0), keys, residuals, 7.0, form)
        assert relative(change.dense(), expected) < 3e-7  # float32 factors


@pytest.mark.parametrize("count", [1, 5, 16, 60])
def test_emmet_in_either_form(count) -> None:
    prior, keys, residuals = problem(count)
    expected = reference.emmet_update(keys.T, residuals.T, prior, 0.1)
    for form in ("dual", "direct"):
        change = solve_jointly(inverse(prior, 0.0), keys, residuals, 0.1, form)
        assert relative(change.dense(), expected) < 3e-7


@pytest.mark.parametrize("count", [1, 5, 8, 60])
def test_alphaedit_in_either_form(count) -> None:
    prior, keys, residuals = problem(count)
    free = null_space(spectrum_of(prior), threshold=3e-3)
    assert 0 < free.rank < INNER
    projection = reference.projection(prior, 3e-3)
    assert free.energy == pytest.approx(float((projection @ prior).trace()))
    expected = reference.alphaedit_update(keys.T, residuals.T, projection, 0.3)
    for form in ("dual", "direct"):
        change = solve_jointly(free.projector, keys, residuals, 0.3, form)
        assert relative(change.dense(), expected) < 1e-6


@pytest.mark.parametrize("count", [2, 5, 16, 30])
def test_keys_of_several_contexts_are_pairs_with_one_change(count) -> None:
    prior, keys, residuals = problem(3 * count)
    wanted = residuals[:count]
    repeated = wanted.repeat_interleave(3, 0)
    expected = reference.memit_update(keys.T, repeated.T, prior, 7.0)
    for form in ("dual", "direct", None):
        apart = keys.reshape(count, 3, INNER)
        change = solve_jointly(inverse(prior, 0.0), apart, wanted, 7.0, form)
        assert relative(change.dense(), expected) < 3e-7
        assert isinstance(change, Dense) or change.rank == count


def test_nearly_equal_keys_are_held_in_float32() -> None:
    """The factors X and R would cancel; orthonormal ones do not."""
    prior, keys, residuals = problem(6)
    keys[1] = keys[0] + 1e-4 * keys[1]
    expected = reference.emmet_update(keys.T, residuals.T, prior, 1e-9)
    change = solve_jointly(inverse(prior, 0.0), keys, residuals, 1e-9)
    assert relative(change.dense(), expected) < 1e-6


def test_factors_where_they_are_smaller() -> None:
    prior, keys, residuals = problem(15)
    assert isinstance(solve_jointly(inverse(prior), keys, residuals, 1.0), LowRank)
    prior, keys, residuals = problem(16)
    assert isinstance(solve_jointly(inverse(prior), keys, residuals, 1.0), Dense)


def test_what_cannot_be_solved_is_refused() -> None:
    prior, keys, residuals = problem(4)
    with pytest.raises(NumericalFailure, match="singular"):
        inverse(torch.zeros(4, 4), 0.0)
    with pytest.raises(NumericalFailure, match="not finite"):
        inverse(torch.full((4, 4), float("nan")))
    keys[1] = keys[0]
    with pytest.raises(NumericalFailure, match="told apart"):
        solve_jointly(inverse(prior), keys, residuals, 0.0)
    with pytest.raises(NumericalFailure):
        solve_jointly(inverse(prior), keys * float("nan"), residuals, 1.0)


def test_moment_is_left_as_it_was() -> None:
    prior = problem(3)[0]
    copy = prior.clone()
    inverse(prior, 0.5)
    assert torch.equal(prior, copy)
    basis = Projector(torch.eye(INNER, dtype=torch.float64)[:, :3])
    assert torch.equal(basis.back(basis.whiten(copy))[3:], torch.zeros(INNER - 3, INNER).double())
