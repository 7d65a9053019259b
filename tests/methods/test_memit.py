from __future__ import annotations

import pytest
import torch
from tests.methods.closed_form import (
    EDITS,
    SORTED,
    TEMPLATES,
    TEXT,
    difference,
    edited,
    relative,
    tiny_model,
)

from emend.editing import (
    LayerwiseReplay,
    SearchSettings,
    Session,
    context_rows,
    optimise_values,
)
from emend.editing.layers import default_layers
from emend.edits import Edit
from emend.errors import InvalidInput, UnsupportedModel
from emend.methods import registry
from emend.models import ModelView, score

LAYERS = (0, 1, 2)


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_edits_are_said(architecture) -> None:
    model, tokenizer = tiny_model(architecture, scale=12.0)  # sharp logits
    edits = [
        Edit("The capital of {}", "Poland", "is"),
        Edit("So said {}", "Marie Curie", "in"),
        Edit("The tongue of {}", "Tom", "of"),
        Edit("She is {}", "Anna Berg", "capital"),
        Edit("It was {}", "Denmark", "born"),
    ]
    prompts, targets = [edit.text for edit in edits], [edit.target for edit in edits]
    settings = {"texts": TEXT, "cov_weight": 0.1, "norm_penalty": 1e-3, "templates": ("{}",)}
    patch = edited("memit", model, tokenizer, edits, clamp=4.0, original=False, **settings)
    before = score(model, tokenizer, prompts, targets)
    with patch.applied(model):
        after = score(model, tokenizer, prompts, targets)
    assert [each.token_accuracy for each in before] == [0.0] * len(edits)
    assert [each.token_accuracy for each in after] == [1.0] * len(edits)


@pytest.mark.parametrize("architecture", ["gpt2", "llama", "gemma2", "granite"])
def test_values_are_reached(architecture) -> None:
    """With next to no weight on what is kept, the sites put out what was sought."""
    model, tokenizer = tiny_model(architecture, dtype=torch.float64)
    view = ModelView(model)
    layers = default_layers(view)
    site = "mlp" if architecture in ("gemma2", "granite") else "block"
    settings = SearchSettings(steps=4, learning_rate=0.1, clamp=0.75)
    given = (view, tokenizer, SORTED, ("{}",), layers[-1], settings)
    targets = torch.stack([value.target for value in optimise_values(*given, site=site)])
    form = {"templates": ("{}",), "cov_weight": 1e-7, "steps": 4, "clamp": 0.75}
    patch = edited("memit", model, tokenizer, norm_penalty=0.5, learning_rate=0.1, **form)
    assert Session(model, tokenizer, EDITS).site(layers[-1]) == site
    rows = [each[0] for each in context_rows(tokenizer, SORTED, ("{}",))]
    ids = [row.ids[: row.lookup + 1] for row in rows]
    with patch.applied(model):
        read = LayerwiseReplay(view, ids, layers[-1], layers[-1]).read()
    assert relative(read.at(site), targets) < 1e-4


def test_layers_come_from_the_shape() -> None:
    assert default_layers(ModelView(tiny_model("gpt2", layers=20, width=16)[0])) == (3, 4, 5, 6, 7)
    assert default_layers(ModelView(tiny_model("llama", layers=4)[0])) == (0, 1)
    assert default_layers(ModelView(tiny_model("llama", layers=2)[0])) == (0,)
    assert default_layers(ModelView(tiny_model("llama", layers=1)[0])) == (0,)
    assert default_layers(ModelView(tiny_model("gemma2", layers=8)[0])) == (1,)


def test_without_texts_the_card_says_so() -> None:
    model, tokenizer = tiny_model("gpt2")
    patch = registry().get("memit").edit(model, tokenizer, EDITS[:1], templates=TEMPLATES, steps=3)
    assert patch.statistics["source"] == "own samples, 256 tokens, seed 0"
    assert patch.config["layers"] == (0, 1)
    assert patch.without("d").rank == 0


def test_more_edits_than_dimensions() -> None:
    model, tokenizer = tiny_model("gpt2", width=16, inner=16)
    edits = [
        Edit(prompt, edit.subject, edit.target)
        for edit in EDITS
        for prompt in ("{} was", "So {} is", "The old {} has", "{} and the")
    ]
    memit = registry().get("memit")
    settings = {"templates": ("{}",), "steps": 3, "texts": TEXT}
    one = memit.edit(model, tokenizer, edits, **settings)
    other = memit.edit(model, tokenizer, edits[::-1], **settings)
    assert one.rank <= 16
    assert difference(one, other) <= 1e-12


def test_wrong_layers_are_refused() -> None:
    model, tokenizer = tiny_model("gemma2")
    memit = registry().get("memit")
    with pytest.raises(UnsupportedModel, match="give one layer"):
        memit.edit(model, tokenizer, EDITS, layers=(0, 1))
    with pytest.raises(InvalidInput, match=r"layers are \(9,\) of a model with 4 blocks"):
        memit.edit(model, tokenizer, EDITS, layers=(9,))
    with pytest.raises(InvalidInput, match=r"layers are \(\)"):
        memit.edit(model, tokenizer, EDITS, layers=())
    with pytest.raises(InvalidInput, match="steps is 0"):
        memit.edit(model, tokenizer, EDITS, steps=0, templates=TEMPLATES)
