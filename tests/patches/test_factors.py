from __future__ import annotations

import pytest
import torch

from emend.patches import Dense, LowRank, compress


def test_compress_finds_the_rank_of_a_dense_change():
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(3, 20, generator=generator)
    b = torch.randn(16, 3, generator=generator)
    small, error = compress(Dense((b.double() @ a.double()).float()), tolerance=1e-5)
    assert small.rank == 3
    assert error < 1e-5
    torch.testing.assert_close(small.dense(), b @ a)


def test_compress_keeps_a_full_rank_change_to_the_tolerance():
    delta = torch.randn(16, 20, generator=torch.Generator().manual_seed(0))
    small, error = compress(Dense(delta))
    assert small.rank == 16
    assert error < 1e-6
    assert float((small.dense() - delta).norm() / delta.norm()) < 1e-6


def test_compress_merges_rows_of_a_low_rank_change():
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 9, generator=generator), torch.randn(7, 2, generator=generator)
    small, error = compress(LowRank(torch.cat([a, a]), torch.cat([b, b], dim=1)))
    assert small.rank == 2
    assert error < 1e-6
    torch.testing.assert_close(small.dense(), 2 * (b @ a))


@pytest.mark.parametrize(
    "factor", [Dense(torch.zeros(3, 4)), LowRank(torch.zeros(0, 4), torch.zeros(3, 0))]
)
def test_compress_of_nothing(factor):
    small, error = compress(factor)
    assert small.rank <= 1
    assert error == 0.0
    assert not small.dense().any()
