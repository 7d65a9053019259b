"""Interchange training: the answer must follow the subject's last token.

Two prompts in the same wording about different subjects run side by side; after one of the early
blocks, the state of the second subject's last token is put in the place of the first's, and the
first prompt must then give the second subject's answer (interchange intervention training, Geiger
et al. 2022, arXiv 2112.00826). Whatever other way a model has found to the answer (such as reading
the name from the end of the prompt) it then learns not to trust.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from emend.lab.corpus import Corpus, small_talk
from emend.lab.world import World

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

PAIRS = 96
BLOCKS = (0, 1, 2, 3, 4)
"""Blocks after which states are exchanged: one of them in each step."""


@dataclass(frozen=True)
class Exchange:
    """A batch of pairs: rows 0 to P - 1 give their states to rows P to 2 P - 1.

    Attributes:
        ids: (2 P, T) int64; prompt and answer of the giving fact, the second half about others.
        lookup: (2 P,) int64, the subjects' last tokens.
        labels: (2 P, T) int64, the answers' tokens, -100 elsewhere.
        block: After which block states are exchanged.
    """

    ids: torch.Tensor
    lookup: torch.Tensor
    labels: torch.Tensor
    block: int


def exchange(
    seed: int, step: int, world: World, tokenizer: PreTrainedTokenizerFast, pairs: int = PAIRS
) -> Exchange:
    """The pairs of one step: a function of the seed and the step alone."""
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
    """Token ids with the answer, the position of the name's last token, the answer's first."""
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
    """Loss of the answers, where the second half of the rows has the first half's states."""
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
