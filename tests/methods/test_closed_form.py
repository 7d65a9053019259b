"""MEMIT, PMET, EMMET and AlphaEdit are their plain loops, whatever the order of the edits.

Models are in float64: in float32 Adam magnifies how gradients round, which differs between
processors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import pytest
import torch
from tests.methods.closed_form import (
    COMMON,
    EDITS,
    FACTS,
    PLACES,
    RIDGE,
    SORTED,
    TEMPLATES,
    TEXT,
    difference,
    edited,
    relative,
    tiny_model,
    wanted,
)
from tests.reference import closed_form as reference
from tests.reference import pmet as pmet_reference
from tests.reference import rome as rome_reference
from torch import Tensor

from emend.methods import registry
from emend.models import ModelView

LAYERS = (0, 1, 2)
WEIGHTS = {"memit": 20.0, "pmet": 20.0, "emmet": 0.1, "alphaedit": 0.5}
PMET_SEARCH = {
    "steps": 6,
    "learning_rate": 0.1,
    "weight_decay": 0.5,
    "kl_factor": 1.0,
    "clamp": 0.75,
}


class Tiny(NamedTuple):
    """A tiny model in float64, and where the plain loops find its modules."""

    model: Any
    tokenizer: Any
    places: reference.Places

    def moment(self, layer: int) -> Tensor:
        """The key covariance of a layer's keys, (inner, inner)."""
        down = self.places.down(self.model, layer)
        return reference.moment(self.model, self.tokenizer, down, TEXT)

    def spread(self, targets: Tensor, layers: tuple[int, ...], update: Any, **how: Any) -> Any:
        """The changes of all layers by the loop over layers."""
        given = (self.model, self.tokenizer, FACTS, targets, TEMPLATES, layers, self.places)
        return reference.spread(*given, update, **how)


Changes = Mapping[int, Tensor]
Loop = Callable[[Tiny], tuple[dict[str, Any], Changes]]
"""Gives further settings of the method, and the changes that a plain loop finds with them."""


def ridged(tiny: Tiny) -> Callable[[int, Tensor, Tensor], Tensor]:
    priors = {layer: reference.with_ridge(tiny.moment(layer), RIDGE) for layer in LAYERS}
    return lambda layer, keys, residuals: reference.memit_update(
        keys, residuals, priors[layer], WEIGHTS["memit"]
    )


def memit(tiny: Tiny) -> tuple[dict[str, Any], Changes]:
    block = tiny.places.block(tiny.model, LAYERS[-1])
    targets = wanted(tiny.model, tiny.tokenizer, block, clamp=0.75)
    return {"layers": LAYERS}, tiny.spread(targets, LAYERS, ridged(tiny))


def pmet(tiny: Tiny) -> tuple[dict[str, Any], Changes]:
    view = ModelView(tiny.model)
    sites = view.attention(LAYERS[-1]), view.down_projection(LAYERS[-1])
    found = []
    for edit in SORTED:
        said = (edit.prompt, edit.subject, edit.target)
        rows = rome_reference.build_rows(tiny.tokenizer, *said, TEMPLATES)
        found.append(pmet_reference.search_value(tiny.model, *sites, rows, **PMET_SEARCH))
    changes = tiny.spread(torch.stack(found), LAYERS, ridged(tiny), at_down=True, power=0.5)
    settings = {"norm_penalty" if k == "weight_decay" else k: v for k, v in PMET_SEARCH.items()}
    return {"layers": LAYERS, **settings}, changes


def emmet(tiny: Tiny) -> tuple[dict[str, Any], Changes]:
    down = tiny.places.down(tiny.model, 1)
    targets = wanted(tiny.model, tiny.tokenizer, down, clamp=4.0)
    prior = reference.with_ridge(tiny.moment(1), RIDGE)
    pairs = [
        [reference.read(tiny.model, tiny.tokenizer, down, each, fact) for each in TEMPLATES]
        for fact in FACTS
    ]
    keys = torch.stack([torch.stack([key for key, _ in each]).mean(0) for each in pairs], 1)
    outputs = torch.stack([torch.stack([out for _, out in each]).mean(0) for each in pairs])
    residuals = (targets - outputs).T
    settings = {"layer": 1, "clamp": 4.0}
    return settings, {1: reference.emmet_update(keys, residuals, prior, WEIGHTS["emmet"])}


def alphaedit(tiny: Tiny) -> tuple[dict[str, Any], Changes]:
    targets = wanted(tiny.model, tiny.tokenizer, tiny.places.block(tiny.model, 1), clamp=0.75)
    prior = tiny.moment(1)
    values = torch.linalg.eigvalsh(prior)
    threshold = float((values[20] * values[21]).sqrt())  # cuts the eigenvalues well apart
    free = reference.projection(prior, threshold)

    def update(_layer: int, keys: Tensor, residuals: Tensor) -> Tensor:
        return reference.alphaedit_update(keys, residuals, free, WEIGHTS["alphaedit"])

    part = values[:21].sum() / values.sum()
    settings = {"layers": (1,), "quantile": float((part + values[:22].sum() / values.sum()) / 2)}
    return settings, tiny.spread(targets, (1,), update)


LOOPS = [(loop, each, 3.0) for loop in (memit, pmet, emmet, alphaedit) for each in PLACES]
LOOPS += [
    (loop, each, 12.0) for loop in (memit, pmet) for each in PLACES
]  # sharp logits stop early


@pytest.mark.parametrize(("loop", "architecture", "scale"), LOOPS)
def test_is_the_plain_loop(loop: Loop, architecture: str, scale: float) -> None:
    model, tokenizer = tiny_model(architecture, dtype=torch.float64, scale=scale)
    name = loop.__name__
    settings, expected = loop(Tiny(model, tokenizer, PLACES[architecture]))
    weight = "norm_weight" if name == "alphaedit" else "cov_weight"
    settings = {**COMMON, weight: WEIGHTS[name], **settings}
    if name != "alphaedit":
        settings["ridge"] = RIDGE
    patch = edited(name, model, tokenizer, **settings)
    view = ModelView(model)
    names = {layer: view.name_of(view.down_projection(layer)) for layer in expected}
    assert list(patch.factors) == list(names.values())
    for layer, change in expected.items():
        assert relative(patch.delta(names[layer]), change) < 1e-4
    if name == "alphaedit":
        assert patch.statistics["null_space"] == {"1": 21}


ORDERS = [(name, "gpt2") for name in WEIGHTS] + [("memit", "llama"), ("memit", "gemma2")]


@pytest.mark.parametrize("original", [True, False])
@pytest.mark.parametrize(("name", "architecture"), ORDERS)
def test_any_order_builds_the_same(name: str, architecture: str, original: bool) -> None:
    method = registry().get(name)
    assert method.order_invariant
    settings: dict[str, Any] = {"templates": TEMPLATES, "texts": TEXT, "steps": 6}
    settings["ablation"] = {"norm_penalty": 0.0}  # or else it outweighs all else in a tiny model
    if name == "alphaedit":
        settings["quantile"] = 0.05
    if name in ("memit", "emmet"):
        settings["original"] = original
    model, tokenizer = tiny_model(architecture)
    one = method.edit(model, tokenizer, EDITS, **settings)
    other = method.edit(model, tokenizer, EDITS[2:] + EDITS[:2], **settings)
    assert difference(one, other) <= 1e-12
    assert [edit.id for edit in other.edits] == [edit.id for edit in EDITS[2:] + EDITS[:2]]
