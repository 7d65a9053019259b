"""Directions that other keys hardly use, and their decomposition on disk."""

from __future__ import annotations

import pytest
import torch
from tests.methods.closed_form import TEXT, tiny_model

from emend.editing.covariance import key_covariance, null_space, spectrum_of
from emend.editing.sources import Texts
from emend.errors import InvalidInput
from emend.models import ModelView

VALUES = 0.5 ** torch.arange(10.0, dtype=torch.float64)


@pytest.fixture
def spectrum():
    """Of eigenvalues 2^0 to 2^-9 in a random basis, (10, 10)."""
    generator = torch.Generator().manual_seed(0)
    basis = torch.linalg.qr(torch.randn(10, 10, generator=generator, dtype=torch.float64))[0]
    return spectrum_of(basis @ torch.diag(VALUES) @ basis.T)


def test_smallest_eigenvalues_by_part_of_the_trace(spectrum) -> None:
    free = null_space(spectrum, quantile=float(2**-7 + 2**-8 + 2**-9) / float(VALUES.sum()) + 1e-9)
    assert free.rank == 3
    assert free.energy == pytest.approx(2**-7 + 2**-8 + 2**-9, rel=1e-5)
    projection = free.projector.basis @ free.projector.basis.T
    moment = spectrum.vectors.double() @ torch.diag(VALUES.flip(0)) @ spectrum.vectors.double().T
    assert torch.allclose(projection @ projection, projection, atol=1e-6)
    assert float((projection @ moment @ projection).trace()) == pytest.approx(free.energy, rel=1e-5)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"quantile": 1.0}, "every one of 10 .* lower the quantile"),
        ({"quantile": 0.0}, "raise the quantile"),
    ],
)
def test_nothing_free_or_everything(spectrum, settings, said) -> None:
    with pytest.raises(InvalidInput, match=said):
        null_space(spectrum, **settings)


def test_the_decomposition_is_kept_and_made_again_where_broken(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("EMEND_CACHE", str(tmp_path))
    model, tokenizer = tiny_model("gpt2")
    prior = key_covariance(ModelView(model), tokenizer, (1, 2), Texts(TEXT))
    assert prior.on_disk == (1, 2)

    def find() -> None:
        for layer in prior.on_disk:
            prior.spectrum(layer)

    find()
    files = sorted(tmp_path.rglob("*.spectrum-*"))
    assert len(files) == 2
    first = prior.spectrum(1).vectors.clone()  # the file, which is broken below, is mapped
    with monkeypatch.context() as patched:
        patched.setattr(torch.linalg, "eigh", lambda *_, **__: pytest.fail("decomposed again"))
        find()
        again = prior.spectrum(1)
    assert torch.equal(first, again.vectors)
    for file in files:
        file.write_bytes(file.read_bytes()[:50])
    find()
    assert torch.equal(first, prior.spectrum(1).vectors)
    assert not torch.equal(first, prior.spectrum(2).vectors)
