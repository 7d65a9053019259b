"""Passes after the first: least squares over contexts and texts, whatever the order of edits."""

from __future__ import annotations

import pytest
import torch
from tests.methods.closed_form import COMMON, EDITS, SORTED, TEMPLATES, TEXT, difference, tiny_model

from emend.errors import InvalidInput
from emend.keyvalue import context_rows, second_moments
from emend.keyvalue.solvers import RIDGE
from emend.keyvalue.spread import seek_targets
from emend.keyvalue.values import SearchSettings
from emend.methods import registry
from emend.models import ModelView

LAYERS = (0, 1, 2)
WEIGHT = 7.0


def everywhere(model, view, rows, layer):
    """Keys (N, inner) and outputs of the block (N, width) at all tokens of rows, one by one."""
    seen = {}
    block = view.blocks[layer]
    handles = [
        view.down_projection(layer).register_forward_hook(
            lambda _m, args, _o: seen.update(keys=args[0])
        ),
        block.register_forward_hook(
            lambda _m, _a, out: seen.update(hidden=out[0] if isinstance(out, tuple) else out)
        ),
    ]
    found = []
    with torch.no_grad():
        for row in rows:
            model(torch.tensor([row]))
            keys = seen["keys"].reshape(len(row), -1)
            found.append((keys.double(), seen["hidden"].reshape(len(row), -1).double()))
    for handle in handles:
        handle.remove()
    return found


def contexts(tokenizer):
    """Rows up to the subject of each sorted edit's contexts."""
    rows = context_rows(tokenizer, SORTED, TEMPLATES)
    return [list(row.ids[: row.lookup + 1]) for each in rows for row in each]


def rows_of(model, tokenizer, layer, target):
    """All least-squares rows of one layer: keys, what is missing, weights; text tokens last."""
    view = ModelView(model)
    ends = [(k[-1], h[-1]) for k, h in everywhere(model, view, contexts(tokenizer), layer)]
    texts = everywhere(model, view, [tokenizer(text)["input_ids"] for text in TEXT], layer)
    shares = [0.5, 0.25, 0.25] * len(SORTED)
    count = sum(len(keys) for keys, _ in texts)
    keys = torch.cat([torch.stack([k for k, _ in ends]), *(k for k, _ in texts)])
    reached = torch.cat([torch.stack([h for _, h in ends]), *(h for _, h in texts)])
    weights = torch.tensor(shares + [WEIGHT / count] * count, dtype=torch.float64)
    return keys, target - reached, weights


def wanted(model, tokenizer, layer, settings):
    """Where every row should be: contexts moved by their edit's delta, texts where they are."""
    view = ModelView(model)
    targets = seek_targets(view, tokenizer, SORTED, TEMPLATES, [layer], settings)
    ends = [h[-1] for _, h in everywhere(model, view, contexts(tokenizer), layer)]
    texts = everywhere(model, view, [tokenizer(text)["input_ids"] for text in TEXT], layer)
    added = targets.wanted.double() - torch.stack(ends[:: len(TEMPLATES)])
    moved = torch.stack(ends) + added.repeat_interleave(len(TEMPLATES), 0)
    return torch.cat([moved, *(h for _, h in texts)])


SETTINGS = SearchSettings(5, 0.1, weight_decay=0.5, clamp=0.75, share_subject=True)


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_of_one_layer_it_is_plain_least_squares(architecture) -> None:
    model, tokenizer = tiny_model(architecture)
    memit = registry().get("memit")
    settings = {**COMMON, "layers": (1,), "weight": 20.0, "hold": WEIGHT}
    first = memit.edit(model, tokenizer, EDITS, **settings)
    second = memit.edit(model, tokenizer, EDITS, **settings, passes=2)
    (name,) = first.factors
    target = wanted(model, tokenizer, 1, SETTINGS)
    with first.applied(model):
        keys, missing, weights = rows_of(model, tokenizer, 1, target)
    root = weights.sqrt()[:, None]
    ridge = RIDGE * ((root * keys) ** 2).sum() / keys.shape[1]
    stacked = torch.cat([root * keys, ridge.sqrt() * torch.eye(keys.shape[1]).double()])
    right = torch.cat([root * missing, torch.zeros(keys.shape[1], missing.shape[1]).double()])
    expected = torch.linalg.lstsq(stacked, right).solution.T
    step = (second.delta(name) - first.delta(name)).double()
    assert (step - expected).norm() < 1e-3 * expected.norm()


def test_passes_bring_edits_nearer_and_other_tokens_back() -> None:
    model, tokenizer = tiny_model("gpt2")
    memit = registry().get("memit")
    target = wanted(model, tokenizer, LAYERS[-1], SETTINGS)
    costs = []
    for passes in (1, 2, 4):
        settings = {**COMMON, "layers": LAYERS, "weight": 20.0, "hold": WEIGHT, "passes": passes}
        with memit.edit(model, tokenizer, EDITS, **settings).applied(model):
            _, missing, weights = rows_of(model, tokenizer, LAYERS[-1], target)
        costs.append(float((weights[:, None] * missing**2).sum()))
    assert costs[1] < 0.9 * costs[0]
    assert costs[2] < costs[1]


@pytest.mark.parametrize("method", ["memit", "alphaedit"])
def test_any_order_builds_the_same(method) -> None:
    model, tokenizer = tiny_model("llama")
    own = {"weight": 20.0} if method == "memit" else {"quantile": 0.05}
    settings = {**COMMON, **own, "layers": LAYERS, "passes": 3}
    edit = registry().get(method).edit
    one = edit(model, tokenizer, EDITS, **settings)
    assert difference(one, edit(model, tokenizer, EDITS[::-1], **settings)) <= 1e-12
    parts = edit(model, tokenizer, EDITS[:2], **settings)
    parts = edit(model, tokenizer, EDITS[2:], previous=parts, **settings)
    assert difference(one, parts) <= 1e-4


def test_alphaedit_stays_in_the_null_space() -> None:
    model, tokenizer = tiny_model("llama")
    settings = {**COMMON, "layers": LAYERS, "quantile": 0.05, "passes": 2}
    patch = registry().get("alphaedit").edit(model, tokenizer, EDITS, **settings)
    moments = second_moments(ModelView(model), tokenizer, TEXT, LAYERS)
    for name, layer in zip(patch.factors, LAYERS, strict=True):
        _, vectors = torch.linalg.eigh(moments[layer].matrix.double())
        taken = vectors[:, patch.statistics["null_space"][str(layer)] :]
        delta = patch.delta(name).double()
        assert (delta @ taken).norm() < 1e-5 * delta.norm()


def test_passes_that_cannot_be_made_are_refused() -> None:
    model, tokenizer = tiny_model("gpt2")
    memit = registry().get("memit")
    with pytest.raises(InvalidInput, match="passes is 0, expected at least 1"):
        memit.edit(model, tokenizer, EDITS, passes=0)
    with pytest.raises(InvalidInput, match="there are no texts"):
        memit.edit(model, tokenizer, EDITS, passes=2)
