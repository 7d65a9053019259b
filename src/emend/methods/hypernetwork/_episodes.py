"""What one step of training is made of: edits, what must change, and what must not."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from emend.editing.rows import Row, context_rows
from emend.edits import Edit
from emend.models import join_targets


@dataclass(frozen=True)
class Episode:
    """E edits and the texts that their changes are judged by.

    Attributes:
        edits: The edits.
        rows: (E) the edits themselves.
        asked: Prompts with the target: each edit's own and a rewording.
        asked_of: For each of them the number of its edit.
        kept: Locality texts with the answers of before.
        kept_of: For each of them the number of the edit that must not move it.
    """

    edits: tuple[Edit, ...]
    rows: list[Row]
    asked: list[Row]
    asked_of: list[int]
    kept: list[Row]
    kept_of: list[int]


def draw_episode(
    tokenizer: Any, edits: Sequence[Edit], kept_texts: int, generator: random.Random
) -> Episode:
    """Texts for some edits.

    An edit without rephrase probes is asked for in its own words only. One without locality
    probes must not move the other edits of the step, with what they said before.
    """
    asked = [(number, edit.text, edit.target) for number, edit in enumerate(edits)]
    kept: list[tuple[int, str, str]] = []
    for number, edit in enumerate(edits):
        rephrased = edit.probes_of("rephrase")
        if rephrased:
            asked.append((number, generator.choice(rephrased).prompt, edit.target))
        texts = [(probe.prompt, probe.answers[0]) for probe in edit.probes_of("locality")]
        if not texts:
            others = [other for other in edits if other.subject != edit.subject]
            texts = [(other.text, other.original or other.target) for other in others]
        chosen = generator.sample(texts, min(kept_texts, len(texts)))
        kept += [(number, prompt, answer) for prompt, answer in chosen]
    rows = [each[0] for each in context_rows(tokenizer, edits, ["{}"])]
    return Episode(
        tuple(edits),
        rows,
        _rows(tokenizer, asked),
        [number for number, _, _ in asked],
        _rows(tokenizer, kept),
        [number for number, _, _ in kept],
    )


def _rows(tokenizer: Any, texts: Sequence[tuple[int, str, str]]) -> list[Row]:
    joined = join_targets(tokenizer, [text for _, text, _ in texts], [end for _, _, end in texts])
    return [Row((*prompt, *target[:-1]), 0, tuple(target)) for prompt, target in joined]
