"""Running statistics against those of all rows at once."""

from __future__ import annotations

import pytest
import torch

from emend.editing.gradients import Normaliser, Whitener


def rows(count: int = 50, size: int = 6, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    scales = torch.tensor([1.0, 10.0, 0.1, 1.0, 1e-3, 5.0])[:size]
    return torch.randn(count, size, generator=generator) * scales + 3 * scales


def test_batches_give_what_all_rows_give() -> None:
    data = rows()
    normaliser = Normaliser(6)
    for part in data.split([1, 7, 0, 30, 12]):
        normaliser.observe(part)
    mean, deviation = normaliser.mean_and_deviation()
    assert torch.allclose(mean, data.double().mean(0))
    assert torch.allclose(deviation, data.double().std(0, correction=0))
    normal = normaliser(data)
    assert torch.allclose(normal.mean(0), torch.zeros(6), atol=1e-5)
    assert torch.allclose(normal.square().mean(0), torch.ones(6), atol=1e-5)


def test_one_row_is_finite_and_with_a_prior_not_nothing() -> None:
    one = rows(1)
    plain, helped = Normaliser(6), Normaliser(6, prior=10)
    for normaliser in (plain, helped):
        normaliser.observe(one)
    assert torch.equal(plain(one), torch.zeros(1, 6))
    assert bool(helped(one).isfinite().all())
    assert float(helped(one).norm()) > 0.1


def test_prior_is_merged_like_rows() -> None:
    data = rows().double()
    normaliser = Normaliser(6, prior=5)
    normaliser.observe(data)
    level = data.square().mean()
    mean, deviation = normaliser.mean_and_deviation()
    total = len(data) + 5
    expected = data.sum(0) / total
    squares = (data.square().sum(0) + 5 * level) / total
    assert torch.allclose(mean, expected)
    assert torch.allclose(deviation, (squares - expected.square()).sqrt())


def test_what_never_varies_is_left_at_zero() -> None:
    data = rows()
    data[:, 2] = 4.0
    normaliser = Normaliser(6)
    normaliser.observe(data)
    assert torch.equal(normaliser(data)[:, 2], torch.zeros(len(data)))


def test_whitener_gives_unit_covariance_once_it_can() -> None:
    mixing = torch.randn(6, 6, generator=torch.Generator().manual_seed(1))
    data = rows(200) @ mixing
    whitener = Whitener(6)
    for part in data.split(40):
        whitener.observe(part)
    white = whitener(data, floor=1e-12).double()
    assert torch.allclose(white.T @ white / len(data), torch.eye(6).double(), atol=1e-3)
    few = Whitener(6)
    few.observe(data[:4])
    plain = Normaliser(6)
    plain.observe(data[:4])
    assert torch.equal(few(data[:4]), plain(data[:4]))


@pytest.mark.parametrize("kind", [Normaliser, Whitener])
def test_state_comes_back(kind) -> None:
    first, again = kind(6), kind(6)
    first.observe(rows())
    again.load_state_dict(first.state_dict())
    assert torch.equal(first(rows(seed=1)), again(rows(seed=1)))
