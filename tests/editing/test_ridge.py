from __future__ import annotations

import pytest
import torch
from tests.reference import closed_form as reference

from emend.editing.covariance import null_space, spectrum_of
from emend.editing.ridge import Held, Projector, directions, inverse, rank_one, ridge_write
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
        change = ridge_write(inverse(prior, 0.0), keys, residuals, 7.0, form)
        assert relative(change.dense(), expected) < 3e-7  # float32 factors


@pytest.mark.parametrize("count", [2, 8, 30])
def test_held_pairs_are_more_pairs_of_the_same_least_squares(count) -> None:
    prior, keys, residuals = problem(2 * count)
    written, others = keys[:count], Held(keys[count:], residuals[count:] * 0.1)
    wanted = torch.cat([residuals[:count], others.residuals])
    expected = reference.memit_update(keys.T, wanted.T, prior, 7.0)
    for form in ("dual", "direct"):
        change = ridge_write(inverse(prior, 0.0), written, residuals[:count], 7.0, form, others)
        assert relative(change.dense(), expected) < 3e-7


@pytest.mark.parametrize("count", [1, 5, 16, 60])
def test_emmet_in_either_form(count) -> None:
    prior, keys, residuals = problem(count)
    expected = reference.emmet_update(keys.T, residuals.T, prior, 0.1)
    for form in ("dual", "direct"):
        change = ridge_write(inverse(prior, 0.0), keys, residuals, 0.1, form)
        assert relative(change.dense(), expected) < 3e-7


@pytest.mark.parametrize("count", [1, 5, 8, 60])
def test_alphaedit_in_either_form(count) -> None:
    prior, keys, residuals = problem(count)
    spectrum = spectrum_of(prior)
    below = spectrum.values[spectrum.values < 3e-3]
    part = float((below.sum() + 1e-9) / spectrum.values.sum())
    free = null_space(spectrum, quantile=part)
    assert 0 < free.rank < INNER
    projection = reference.projection(prior, 3e-3)
    assert free.energy == pytest.approx(float((projection @ prior).trace()))
    expected = reference.alphaedit_update(keys.T, residuals.T, projection, 0.3)
    for form in ("dual", "direct"):
        change = ridge_write(free.projector, keys, residuals, 0.3, form)
        assert relative(change.dense(), expected) < 1e-6


@pytest.mark.parametrize("count", [2, 5, 16, 30])
def test_keys_of_several_contexts_are_pairs_with_one_change(count) -> None:
    prior, keys, residuals = problem(3 * count)
    wanted = residuals[:count]
    repeated = wanted.repeat_interleave(3, 0)
    expected = reference.memit_update(keys.T, repeated.T, prior, 7.0)
    for form in ("dual", "direct", None):
        apart = keys.reshape(count, 3, INNER)
        change = ridge_write(inverse(prior, 0.0), apart, wanted, 7.0, form)
        assert relative(change.dense(), expected) < 3e-7
        assert isinstance(change, Dense) or change.rank == count


def test_nearly_equal_keys_are_held_in_float32() -> None:
    """The factors X and R would cancel; orthonormal ones do not."""
    prior, keys, residuals = problem(6)
    keys[1] = keys[0] + 1e-4 * keys[1]
    expected = reference.emmet_update(keys.T, residuals.T, prior, 1e-9)
    change = ridge_write(inverse(prior, 0.0), keys, residuals, 1e-9)
    assert relative(change.dense(), expected) < 1e-6


def test_factors_where_they_are_smaller() -> None:
    prior, keys, residuals = problem(15)
    assert isinstance(ridge_write(inverse(prior), keys, residuals, 1.0), LowRank)
    prior, keys, residuals = problem(16)
    assert isinstance(ridge_write(inverse(prior), keys, residuals, 1.0), Dense)


def test_what_cannot_be_solved_is_refused() -> None:
    prior, keys, residuals = problem(4)
    with pytest.raises(NumericalFailure, match="singular"):
        inverse(torch.zeros(4, 4), 0.0)
    with pytest.raises(NumericalFailure, match="not finite"):
        inverse(torch.full((4, 4), float("nan")))
    keys[1] = keys[0]
    with pytest.raises(NumericalFailure, match="linearly dependent"):
        ridge_write(inverse(prior), keys, residuals, 0.0)
    with pytest.raises(NumericalFailure):
        ridge_write(inverse(prior), keys * float("nan"), residuals, 1.0)


def test_moment_is_left_as_it_was() -> None:
    prior = problem(3)[0]
    copy = prior.clone()
    inverse(prior, 0.5)
    assert torch.equal(prior, copy)
    basis = Projector(torch.eye(INNER, dtype=torch.float64)[:, :3])
    assert torch.equal(
        basis.unwhiten(basis.whiten(copy))[3:], torch.zeros(INNER - 3, INNER).double()
    )


def sample(size: int = 12, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    keys = torch.randn(5 * size, size, generator=generator, dtype=torch.float64)
    return keys.T @ keys / len(keys), torch.randn(3, size, generator=generator)


def solve(moment: torch.Tensor, keys: torch.Tensor, ridge: float = 1e-4) -> torch.Tensor:
    """(C + ridge)^-1 K^T, transposed."""
    metric = inverse(moment, ridge)
    return metric.unwhiten(metric.whiten(keys.T)).T


def test_solution_solves() -> None:
    moment, keys = sample()
    assert torch.allclose(moment @ solve(moment, keys, 0.0).T, keys.T.double())
    ridged = moment + 0.1 * moment.diagonal().mean() * torch.eye(12, dtype=torch.float64)
    assert torch.allclose(ridged @ solve(moment, keys, 0.1).T, keys.T.double())


def test_directions_have_unit_length() -> None:
    moment, keys = sample()
    solved = solve(moment, keys)
    found = directions(solved)
    assert torch.allclose(found.norm(dim=1), torch.ones(3).double())
    assert torch.allclose(found * solved.norm(dim=1, keepdim=True), solved)


def test_rank_one_is_exact_at_its_key() -> None:
    moment, keys = sample()
    generator = torch.Generator().manual_seed(1)
    matrix = torch.randn(7, 12, generator=generator, dtype=torch.float64)
    wanted = torch.randn(7, generator=generator, dtype=torch.float64)
    key, other = keys[0].double(), keys[1].double()
    direction = directions(solve(moment, keys))[0]
    u, v = rank_one(direction, key, matrix @ key, wanted)
    changed = matrix + torch.outer(v, u)
    assert torch.allclose(changed @ key, wanted)
    # The published form uses the bare prompt's key: exact there, and not at the mean key.
    u, v = rank_one(direction, other, matrix @ other, wanted)
    changed = matrix + torch.outer(v, u)
    assert torch.allclose(changed @ other, wanted)
    assert not torch.allclose(changed @ key, wanted)


def test_failures_say_what_to_do() -> None:
    moment, keys = sample()
    singular = torch.outer(keys[0], keys[0])
    with pytest.raises(NumericalFailure, match="singular"):
        inverse(singular, 0.0)
    inverse(singular, 1e-4)
    with pytest.raises(NumericalFailure, match="not finite"):
        inverse(moment * float("nan"))
    with pytest.raises(NumericalFailure, match="zero"):
        directions(torch.zeros(1, 4))
    with pytest.raises(NumericalFailure, match="orthogonal"):
        rank_one(torch.tensor([1.0, 0]), torch.tensor([0, 1.0]), torch.zeros(2), torch.ones(2))
