"""Other subjects whose values are held while edits are written, and values that are no longer than
they must be."""

from __future__ import annotations

import pytest
import torch
from tests.tiny import tiny_model

import emend
from emend.editing import SearchSettings, optimise_values
from emend.editing.aims import Scored
from emend.editing.layerwise import LayerwiseReplay, distribute_residuals
from emend.editing.preservation import about_others
from emend.editing.ridge import inverse, ridge_write
from emend.editing.rows import context_rows
from emend.edits import Edit
from emend.lab import shipped_world
from emend.models import ModelView
from emend.patches import WeightPatch

EDITS = [Edit("{} was born in", name, "Paris") for name in ("Marie Curie", "Tom Berg")]
OTHERS = [Edit("{} was born in", name, "Paris") for name in ("Marie Berg", "Tom Curie", "Anna")]
LAYERS = (0, 1, 2)


def values(view, tokenizer, edits, patch):
    """The MLP's outputs of the last layer at the subjects, with a patch."""
    rows = [each[0].upto_subject for each in context_rows(tokenizer, edits, ["{}"])]
    with patch.applied(view.model):
        return LayerwiseReplay(view, rows, 0, LAYERS[-1]).read(LAYERS[-1]).outputs


def written(view, tokenizer, hold):
    generator = torch.Generator().manual_seed(0)
    before = values(view, tokenizer, EDITS, WeightPatch({}))
    targets = before + torch.randn(before.shape, generator=generator)
    metric = inverse(torch.eye(view.intermediate_size(0)))

    def write(layer, keys, residuals, held):
        return ridge_write(metric, keys, residuals, 1e-4, held=held)

    changes = distribute_residuals(
        *(view, tokenizer, EDITS, targets, "mlp", ["{}"], LAYERS, write), hold=hold
    )
    names = {layer: view.name_of(view.down_projection(layer)) for layer in LAYERS}
    return targets, WeightPatch({names[layer]: one for layer, one in changes.items()})


def test_held_subjects_keep_their_values_and_edits_reach_theirs() -> None:
    model, tokenizer = tiny_model("llama")
    view = ModelView(model)
    before = values(view, tokenizer, OTHERS, WeightPatch({}))
    moved = []
    for hold in ((), OTHERS):
        targets, patch = written(view, tokenizer, hold)
        assert torch.allclose(values(view, tokenizer, EDITS, patch), targets, atol=0.02)
        moved.append(float((values(view, tokenizer, OTHERS, patch) - before).norm()))
    assert moved[1] < 0.05 * moved[0]


def test_the_model_names_others_and_never_an_edited_subject() -> None:
    model, tokenizer = tiny_model("llama")
    view = ModelView(model)
    assert about_others(view, tokenizer, EDITS, 0) == []
    found = about_others(view, tokenizer, EDITS, 3)
    assert not {edit.subject for edit in EDITS} & {edit.subject for edit in found}
    assert len({edit.text for edit in found}) == len(found) <= 6


class Away:
    """A loss that is 0 once the answer is no longer among the ten most probable tokens."""

    name, layers, rephrasings, stops = "away", (), 0, True

    def __init__(self, shortest: bool) -> None:
        self.shortest = shortest

    def margin(self, scored: Scored) -> torch.Tensor:
        own = scored.logits.gather(1, scored.tokens[:, None])[:, 0]
        return own - scored.logits.topk(10).values[:, -1]

    def loss(self, scored: Scored) -> torch.Tensor:
        return self.margin(scored).clamp(min=0)

    def reached(self, scored: Scored) -> torch.Tensor:
        return self.margin(scored) < 0

    def record(self):
        return {"name": self.name}


@pytest.fixture(scope="module")
def lab():
    return emend.load("lab/gptneo")


def test_a_value_is_no_longer_than_its_aim_asks_for(lab) -> None:
    model, tokenizer = lab
    fact = next(one for one in shipped_world().facts.values() if one.relation == "birthplace")
    edit = Edit("{} was born in", fact.subject, fact.object)
    view, settings = ModelView(model), {"optimizer": "lbfgs", "clamp": 8.0}
    lengths, margins = [], []
    for shortest in (False, True):
        chosen = SearchSettings(**settings, aim=Away(shortest))
        (value,) = optimise_values(view, tokenizer, [edit], ["{}"], 2, chosen)
        lengths.append(float(value.delta.norm()))
        margins.append(ranked(view, tokenizer, edit, value))
    assert all(rank > 10 for rank in margins)
    assert lengths[1] < 0.9 * lengths[0]


def ranked(view, tokenizer, edit, value) -> int:
    """The answer's rank with the value in place of the output, 1 the first."""
    down = view.down_projection(2)
    (row,) = context_rows(tokenizer, [edit], ["{}"])[0]

    def add(_module, _args, output):
        output = output.clone()
        output[0, row.lookup] += value.delta
        return output

    handle = down.register_forward_hook(add)
    try:
        with torch.no_grad():
            logits = view.model(torch.tensor([row.ids])).logits[0, -1]
    finally:
        handle.remove()
    return int((logits > logits[row.targets[-1]]).sum()) + 1
