"""Directions that other keys hardly use, and their decomposition on disk."""

from __future__ import annotations

import pytest
import torch

from emend.errors import InvalidInput
from emend.keyvalue.nullspace import null_space


@pytest.fixture
def moment():
    """Eigenvalues 2^0 to 2^-9 in a random basis, (10, 10)."""
    generator = torch.Generator().manual_seed(0)
    basis = torch.linalg.qr(torch.randn(10, 10, generator=generator, dtype=torch.float64))[0]
    return basis @ torch.diag(0.5 ** torch.arange(10.0, dtype=torch.float64)) @ basis.T


def test_smallest_eigenvalues_by_part_of_the_trace_or_threshold(moment) -> None:
    free = null_space(moment, threshold=0.01)
    assert free.rank == 3
    assert free.energy == pytest.approx(2**-7 + 2**-8 + 2**-9, rel=1e-5)
    projection = free.projector.basis @ free.projector.basis.T
    assert torch.allclose(projection @ projection, projection, atol=1e-6)
    assert float((projection @ moment @ projection).trace()) == pytest.approx(free.energy, rel=1e-5)
    assert null_space(moment, quantile=free.energy / float(moment.trace()) + 1e-9).rank == 3


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"threshold": 1e-9}, "no one of 10 .* raise the threshold"),
        ({"threshold": 9.0}, "every one of 10 .* lower the threshold"),
        ({"quantile": 0.0}, "raise the quantile"),
    ],
)
def test_nothing_free_or_everything(moment, settings, said) -> None:
    with pytest.raises(InvalidInput, match=said):
        null_space(moment, **settings)


def test_the_decomposition_is_kept_and_made_again_where_broken(
    moment, tmp_path, monkeypatch
) -> None:
    first = null_space(moment, threshold=0.01, cache=tmp_path)
    (file,) = tmp_path.iterdir()
    with monkeypatch.context() as patched:
        patched.setattr(torch.linalg, "eigh", lambda *_, **__: pytest.fail("decomposed again"))
        again = null_space(moment, threshold=0.01, cache=tmp_path)
    assert torch.equal(first.projector.basis, again.projector.basis)
    file.write_bytes(file.read_bytes()[:50])
    mended = null_space(moment, threshold=0.01, cache=tmp_path)
    assert torch.equal(first.projector.basis, mended.projector.basis)
    null_space(moment * 2, threshold=0.01, cache=tmp_path)
    assert len(list(tmp_path.iterdir())) == 2
