"""Knowledge Neurons: shift the output columns of a few MLP units from the old answer to the new.

Dai et al. 2022, "Knowledge Neurons in Pretrained Transformers", arXiv 2104.08696.

    W_i' = W_i - lambda1 e(old) + lambda2 e(new)    for each knowledge neuron i      (section 5.1)

    paper     here                what
    W_i       a column            output of unit i (column of the down-projection)
    e(.)      `_embedded`         input embedding of an answer; of several tokens, their sum
    lambda1   REMOVE              1
    lambda2   ADD                 8
    Attr      `locate.attribute`  integrated gradients of P(old) along the activations
    t, p      threshold, share    coarse set: Attr > t max; kept: in more than p of the prompts

It is a weak editor. An embedding is the right thing to write only where input embeddings and head
are tied with no norm in between, and the units found belong to the prediction position of one
prompt, not to the subject: other facts with the same answer change too.

Deviations from the authors' code (for BERT): prompts are the edit's own and its rephrase probes, if
any (with the *old* answer; generalization is measured on the same wordings, so compare with an edit
without probes too); the model's own answer replaces an unknown ``original`` and is recorded in the
patch's statistics; where no unit is found in enough prompts, fewer prompts suffice; and an answer
of several tokens is attributed token by token. Each edit is made alone on the unedited model, so
that any can be taken out again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from emend._settings import Count, Share
from emend.editing import Session, context_rows
from emend.edits import Edit
from emend.errors import UnsupportedModel
from emend.locate import Neuron, attribute_tokens, coarse, refine, same_size_layers
from emend.methods._method import method
from emend.models import ModelView, join_targets
from emend.models.forward import check_length, evaluating
from emend.models.placing import device_of, weight_of
from emend.models.positions import pad, prompt_tokens
from emend.patches import LowRank, WeightPatch

BATCH = 256
"""Tokens run at once."""

REMOVE, ADD = 1.0, 8.0
"""Factors on the embeddings of the old and the new answer, as published."""


@dataclass(frozen=True)
class Found:
    """Settings by which units are found; see `kn`."""

    threshold: float
    share: float
    steps: int
    layers: tuple[int, ...]


@method(
    title="Knowledge Neurons: find the units that carry a fact and change their outputs",
    paper="Dai et al. 2022, arXiv 2104.08696",
    when="to study where a fact is read out; as an editor a historical baseline that does poorly",
    avoid="to edit a fact that matters: other facts with the same answer change too",
    continues="additive",
    order_invariant=True,
)
def kn(
    session: Session,
    *,
    layers: tuple[int, ...] | None = None,
    threshold: Share = 0.2,
    share: Share = 0.5,
    steps: Count = 20,
) -> WeightPatch:
    """Find each edit's units on the unedited model and shift their columns.

    Args:
        session: The edits and the engine.
        layers: Layers whose units may be found; by default all that can be edited and have one
            size.
        threshold: Units count whose attribution is more than this share of the largest (t).
        share: Units are taken that count in more than this share of the prompts (p), which are the
            edit's own and its rephrase probes.
        steps: Steps of the integration (S).
    """
    view, edits = session.view, session.edits
    _check_embeddings(view)
    chosen = view.numbered(same_size_layers(view) if layers is None else layers)
    how = Found(threshold, share, steps, tuple(sorted(set(chosen))))
    context_rows(session.tokenizer, edits, ["{}"])  # refuses a subject without a token
    old = old_answers(session.model, session.tokenizer, edits)
    found = _neurons(view, session.tokenizer, edits, old, how)
    return session.patch(
        _factors(session, old, found),
        layers=how.layers,
        statistics={
            "neurons": {e.id: [list(n) for n in found[e.id]] for e in edits},
            "original": {
                e.id: session.tokenizer.decode(old[e.id]) for e in edits if not e.original
            },
        },
    )


def _check_embeddings(view: ModelView) -> None:
    """Refuse a model whose embeddings cannot be added to the residual stream.

    Raises:
        UnsupportedModel: They have another size.
    """
    features = int(_embedding(view).shape[1])
    if features != view.hidden_size:
        raise UnsupportedModel(
            f"{type(view.model).__name__} has embeddings of size {features} and a hidden size of "
            f"{view.hidden_size}, so one cannot be added to the other: choose another method"
        )


def old_answers(model: Any, tokenizer: Any, edits: Sequence[Edit]) -> dict[str, list[int]]:
    """Return the tokens of the model's present answers, by edit id.

    That is ``original``; where it is unknown, the model's greedy answer of as many tokens as the
    target has.
    """
    joined = join_targets(
        tokenizer, [e.text for e in edits], [e.original or e.target for e in edits]
    )
    found: dict[str, list[int]] = {}
    for edit, (prompt, answer) in zip(edits, joined, strict=True):
        known = edit.original is not None
        found[edit.id] = answer if known else _greedy(model, prompt, len(answer))
    return found


def _greedy(model: Any, prompt: list[int], count: int) -> list[int]:
    check_length(model, len(prompt) + count)
    ids = list(prompt)
    device = device_of(model.get_input_embeddings())
    with torch.no_grad(), evaluating(model):
        for _ in range(count):
            batch = pad([ids]).to(device)
            logits = model(
                input_ids=batch.input_ids, attention_mask=batch.attention_mask, use_cache=False
            ).logits
            ids.append(int(logits[0, -1].argmax()))
    return ids[len(prompt) :]


def _neurons(
    view: ModelView,
    tokenizer: Any,
    edits: Sequence[Edit],
    old: dict[str, list[int]],
    how: Found,
) -> dict[str, list[Neuron]]:
    """Find the units of each edit, by its id."""
    texts: list[str] = []
    owners: list[str] = []
    for edit in edits:
        probes = edit.probes_of("rephrase")
        prompts = dict.fromkeys([edit.text, *(probe.prompt for probe in probes)])
        texts += prompts
        owners += [edit.id] * len(prompts)
    pairs = list(zip(prompt_tokens(tokenizer, texts), (old[o] for o in owners), strict=True))
    maps = attribute_tokens(view, pairs, steps=how.steps, layers=how.layers, batch_size=BATCH)
    sets: dict[str, list[list[Neuron]]] = {}
    for owner, one in zip(owners, maps, strict=True):
        sets.setdefault(owner, []).append(coarse(one, how.threshold, how.layers))
    return {owner: refine(each, how.share) for owner, each in sets.items()}


def _factors(
    session: Session,
    old: dict[str, list[int]],
    found: dict[str, list[Neuron]],
) -> dict[str, LowRank]:
    """Make one row of A (a unit vector) and one column of B for each unit of each edit."""
    view, edits = session.view, session.edits
    joined = join_targets(session.tokenizer, [e.text for e in edits], [e.target for e in edits])
    rows: dict[int, list[tuple[int, Tensor, str]]] = {}
    for edit, (_, new) in zip(edits, joined, strict=True):
        shift = ADD * _embedded(view, new) - REMOVE * _embedded(view, old[edit.id])
        for layer, unit in found[edit.id]:
            rows.setdefault(layer, []).append((unit, shift, edit.id))
    factors: dict[str, LowRank] = {}
    for layer, entries in sorted(rows.items()):
        units, shifts, ids = zip(*entries, strict=True)
        down = torch.zeros(len(units), view.intermediate_size(layer))
        down[torch.arange(len(units)), torch.tensor(units)] = 1.0
        name = view.name_of(view.down_projection(layer))
        factors[name] = LowRank(down, torch.stack(shifts, dim=1), ids)
    return factors


def _embedding(view: ModelView) -> Tensor:
    return weight_of(view.embeddings).detach()


def _embedded(view: ModelView, tokens: Sequence[int]) -> Tensor:
    """Sum the input embeddings of an answer's tokens, (hidden_size,) float32."""
    weight = _embedding(view)
    return weight[torch.tensor(list(tokens), device=weight.device)].float().sum(0).cpu()
