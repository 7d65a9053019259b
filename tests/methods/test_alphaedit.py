from __future__ import annotations

import pytest
import torch
from tests.methods.closed_form import (
    COMMON,
    EDITS,
    TEXT,
    difference,
    edited,
    tiny_model,
)

from emend.editing import collect_covariance, null_space
from emend.editing.covariance import spectrum_of
from emend.errors import InvalidInput
from emend.models import ModelView

LAYERS = (0, 1, 2)


def test_preserved_directions_are_not_touched() -> None:
    model, tokenizer = tiny_model("llama")
    patch = edited("alphaedit", model, tokenizer, layers=LAYERS, quantile=0.05, **COMMON)
    moments = collect_covariance(ModelView(model), tokenizer, TEXT, LAYERS)
    for name, layer in zip(patch.factors, LAYERS, strict=True):
        _, vectors = torch.linalg.eigh(moments[layer].matrix.double())
        rank = patch.statistics["null_space"][str(layer)]
        assert 0 < rank < len(vectors)
        delta = patch.delta(name).double()
        assert (delta @ vectors[:, rank:]).norm() < 1e-5 * delta.norm()
        assert (delta @ vectors[:, :rank]).norm() > 0.99 * delta.norm()


def test_the_projector_is_kept(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("EMEND_CACHE", str(tmp_path))
    model, tokenizer = tiny_model("gpt2")
    settings = {**COMMON, "quantile": 0.05, "layers": (0, 1)}
    one = edited("alphaedit", model, tokenizer, **settings)
    assert len(list(tmp_path.rglob("*.spectrum-*.safetensors"))) == 2

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("decomposed again")

    monkeypatch.setattr(torch.linalg, "eigh", refuse)
    assert difference(one, edited("alphaedit", model, tokenizer, **settings)) == 0.0


def test_nothing_free_and_nothing_kept_are_refused() -> None:
    model, tokenizer = tiny_model("gpt2")
    for quantile, message in (
        (1e-12, "no one of 64 directions"),
        (1.0, r"quantile is 1.0, expected .*less than 1"),
    ):
        with pytest.raises(InvalidInput, match=message):
            edited("alphaedit", model, tokenizer, EDITS[:1], **COMMON, quantile=quantile)
    spectrum = spectrum_of(torch.eye(4) + torch.diag(torch.tensor([0.0, 0, 0, -1])))
    with pytest.raises(InvalidInput, match="every one of 4 directions"):
        null_space(spectrum, quantile=1.0)


def test_nothing_free_is_refused_before_the_search(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("EMEND_CACHE", str(tmp_path))
    model, tokenizer = tiny_model("gpt2")

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("values were optimised")

    monkeypatch.setattr("emend.editing.session.cached_values", refuse)
    with pytest.raises(InvalidInput, match="no one of 64 directions"):
        edited("alphaedit", model, tokenizer, EDITS[:1], **COMMON, quantile=1e-12)
