"""Losses of the lab's training: on the corpus, and of interchange training.

Interchange training makes the answer depend on the subject's last token. Two prompts in the same
wording about different subjects run in one batch; after one of the early layers, the state of the
second subject's last token replaces the first's, and the first prompt must then give the second
subject's answer (interchange intervention training, Geiger et al. 2022, arXiv 2112.00826). This
unlearns other routes to the answer, such as reading the name from the end of the prompt.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from emend.lab.corpus import Corpus, small_talk
from emend.lab.language import RECALL, TEXT
from emend.lab.world import World

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

    from emend.lab.training import TrainingConfig

PAIRS = 96
BLOCKS = (0, 1, 2, 3, 4)
"""Layers after which states are exchanged: one of them in each step."""


def corpus_loss(
    model: PreTrainedModel, ids: torch.Tensor, roles: torch.Tensor, config: TrainingConfig
) -> torch.Tensor:
    """Compute the next-token loss with weighted answers, plus the early-exit loss of attributes.

    Args:
        model: The model in training.
        ids: Token ids (rows, length).
        roles: Roles of the tokens (rows, length).
        config: Weights of the parts.
    """
    output: Any = model.base_model(input_ids=ids, output_hidden_states=True, use_cache=False)
    labels = ids[:, 1:].flatten()
    kinds = roles[:, 1:].flatten()
    # Half of the ordinary tokens are enough, but all answers.
    used = (kinds != TEXT) | (torch.arange(len(kinds)) % 2 == 0)
    weights = torch.where(kinds[used] == TEXT, 1.0, config.answer_weight)
    hidden = output.last_hidden_state[:, :-1].flatten(0, 1)[used]  # (used, width)
    total = _cross_entropy(model, hidden, labels[used], weights)
    recalled = kinds == RECALL
    if recalled.any():
        base: Any = model.base_model
        norm = base.ln_f if hasattr(base, "ln_f") else base.norm
        for block in config.exit_blocks:
            early = output.hidden_states[block + 1][:, :-1].flatten(0, 1)[recalled]
            part = _cross_entropy(model, norm(early), labels[recalled], None)
            total = total + config.exit_weight * part / len(config.exit_blocks)
    return total


def _cross_entropy(
    model: PreTrainedModel,
    hidden: torch.Tensor,
    labels: torch.Tensor,
    weights: torch.Tensor | None,
) -> torch.Tensor:
    head: Any = model.get_output_embeddings()
    logits = head(hidden).float()
    losses = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
    return losses.mean() if weights is None else (losses * weights).sum() / weights.sum()


@dataclass(frozen=True)
class Exchange:
    """A batch of pairs: rows 0 to P - 1 give their states to rows P to 2 P - 1.

    Attributes:
        ids: (2 P, T) int64; prompts and answers of P facts, then those of P other subjects.
        lookup: (2 P,) int64, the subjects' last tokens.
        labels: (2 P, T) int64, the answers' tokens, -100 elsewhere.
        block: The layer after which states are exchanged.
    """

    ids: torch.Tensor
    lookup: torch.Tensor
    labels: torch.Tensor
    block: int


def exchange(
    seed: int, step: int, world: World, tokenizer: PreTrainedTokenizerFast, pairs: int = PAIRS
) -> Exchange:
    """Draw the pairs of one step: a function of the seed and the step only."""
    generator = random.Random(f"exchange-{seed}-{step}")
    corpus = Corpus(world, generator)
    givers: list[tuple[list[int], int, int]] = []
    takers: list[tuple[list[int], int, int]] = []
    while len(givers) < pairs:
        giver = corpus.any_fact()
        taker = world.facts[(generator.choice(corpus.having[giver.relation]), giver.relation)]
        shared = sorted(set(giver.statements(seen=True)) & set(taker.statements(seen=True)))
        before = ""
        if generator.random() < 0.3:
            before = "".join(text for text, _ in small_talk(corpus)) + " "
        template = before + generator.choice(shared)
        value = generator.choice(giver.objects)
        rows = [_row(tokenizer, template, corpus.call(f.subject), value) for f in (giver, taker)]
        if rows[0][1:] == rows[1][1:]:
            givers.append(rows[0])
            takers.append(rows[1])
    return _pad(givers + takers, generator.choice(BLOCKS))


def _row(
    tokenizer: PreTrainedTokenizerFast, template: str, name: str, value: str
) -> tuple[list[int], int, int]:
    """Return token ids with the answer, the positions of the name's last and the answer's first."""
    prompt = template.format(name)
    end = template.index("{}") + len(name)
    encoded: Any = tokenizer.backend_tokenizer.encode(prompt)
    lookup = next(i for i, (_, stop) in enumerate(encoded.offsets) if stop >= end)
    answer: Any = tokenizer.backend_tokenizer.encode(" " + value)
    return encoded.ids + answer.ids, lookup, len(encoded.ids)


def _pad(rows: list[tuple[list[int], int, int]], block: int) -> Exchange:
    length = max(len(ids) for ids, _, _ in rows)
    ids = torch.zeros(len(rows), length, dtype=torch.long)
    labels = torch.full_like(ids, -100)
    for row, (tokens, _, start) in enumerate(rows):
        ids[row, : len(tokens)] = torch.tensor(tokens)
        labels[row, start : len(tokens)] = ids[row, start : len(tokens)]
    return Exchange(ids, torch.tensor([lookup for _, lookup, _ in rows]), labels, block)


def exchange_loss(model: PreTrainedModel, pairs: Exchange) -> torch.Tensor:
    """Compute the loss of the answers, with the first half's states in the second half of rows."""
    base: Any = model.base_model
    blocks: Any = base.h if hasattr(base, "h") else base.layers
    count = len(pairs.lookup) // 2
    rows = torch.arange(count)

    def swap(_module: Any, _inputs: Any, output: Any) -> Any:
        hidden = output[0] if isinstance(output, tuple) else output  # (2 P, T, width)
        swapped = hidden.clone()
        swapped[rows + count, pairs.lookup[count:]] = hidden[rows, pairs.lookup[:count]]
        return (swapped, *output[1:]) if isinstance(output, tuple) else swapped

    handle = blocks[pairs.block].register_forward_hook(swap)
    try:
        hidden = base(input_ids=pairs.ids, use_cache=False).last_hidden_state[:, :-1]
    finally:
        handle.remove()
    labels = pairs.labels[:, 1:]
    asked = labels != -100
    head: Any = model.get_output_embeddings()
    return torch.nn.functional.cross_entropy(head(hidden[asked]).float(), labels[asked])
