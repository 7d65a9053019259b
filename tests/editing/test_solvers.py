from __future__ import annotations

import pytest
import torch

from emend.editing import directions, rank_one, solve_moment
from emend.errors import NumericalFailure


def sample(size: int = 12, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    keys = torch.randn(5 * size, size, generator=generator, dtype=torch.float64)
    return keys.T @ keys / len(keys), torch.randn(3, size, generator=generator)


def test_solution_solves() -> None:
    moment, keys = sample()
    found = solve_moment(moment, keys.T, ridge=0.0)
    assert torch.allclose(moment @ found, keys.T.double())
    ridged = moment + 0.1 * moment.diagonal().mean() * torch.eye(12, dtype=torch.float64)
    assert torch.allclose(ridged @ solve_moment(moment, keys.T, 0.1), keys.T.double())


def test_directions_have_unit_length() -> None:
    moment, keys = sample()
    solved = solve_moment(moment, keys.T).T
    found = directions(solved)
    assert torch.allclose(found.norm(dim=1), torch.ones(3).double())
    assert torch.allclose(found * solved.norm(dim=1, keepdim=True), solved)


def test_rank_one_is_exact_at_its_key() -> None:
    moment, keys = sample()
    generator = torch.Generator().manual_seed(1)
    matrix = torch.randn(7, 12, generator=generator, dtype=torch.float64)
    wanted = torch.randn(7, generator=generator, dtype=torch.float64)
    key, other = keys[0].double(), keys[1].double()
    direction = directions(solve_moment(moment, keys.T).T)[0]
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
        solve_moment(singular, keys.T, ridge=0.0)
    solve_moment(singular, keys.T, ridge=1e-4)
    with pytest.raises(NumericalFailure, match="not finite"):
        solve_moment(moment * float("nan"), keys.T)
    with pytest.raises(NumericalFailure, match="zero"):
        directions(torch.zeros(1, 4))
    with pytest.raises(NumericalFailure, match="orthogonal"):
        rank_one(torch.tensor([1.0, 0]), torch.tensor([0, 1.0]), torch.zeros(2), torch.ones(2))
