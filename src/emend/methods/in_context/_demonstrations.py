"""Demonstrations of how to use a new fact: copy it, apply it to other words, retain the rest.

Zheng et al. 2023, "Can We Edit Factual Knowledge by In-Context Learning?", arXiv 2305.12740:
copy, update and retain in the ratio 1:3:4, of the facts most like the new one, the most like last.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from emend import datasets, retrieval
from emend.edits import Edit, Probe
from emend.errors import InvalidInput, UnknownName
from emend.methods.in_context._facts import statement

KINDS = ("copy", "update", "retain")
GENERAL = "general"
"""The demonstrations that ship: 32 facts of general knowledge, changed."""
NONE = "none"
_DRAWN = 1_000


@dataclass(frozen=True)
class Demonstration:
    """A new fact, a prompt, and the answer to it that follows.

    Attributes:
        kind: `copy` (the fact's own prompt), `update` (other words) or `retain` (another fact).
    """

    kind: str
    fact: str
    prompt: str
    answer: str


class Pool:
    """Edits that demonstrations are made of, searched by their statements.

    Args:
        edits: With `rephrase` probes for updates and `neighborhood` probes for retaining.
        encoder: See `emend.retrieval`; by default their statements are compared by words.
        model: The language model, where the encoder needs it.
        tokenizer: Its tokenizer.
    """

    def __init__(
        self,
        edits: Sequence[Edit],
        encoder: str = "bm25",
        *,
        model: Any = None,
        tokenizer: Any = None,
    ) -> None:
        self.edits = list(edits)
        texts = [statement(edit) for edit in self.edits]
        self._index = retrieval.build_index(texts, encoder, model=model, tokenizer=tokenizer)

    def nearest(self, fact: str, count: int, without: Sequence[str]) -> list[Edit]:
        """Return the edits most like a fact, whose statements name none of some subjects."""
        if not self.edits:
            return []
        found: list[Edit] = []
        for hit in self._index.search([fact], len(self.edits))[0]:
            edit = self.edits[hit.place]
            if not any(name in statement(edit) for name in without):
                found.append(edit)
                if len(found) == count:
                    break
        return found


def pool_of(name: str, encoder: str = "bm25", *, model: Any = None, tokenizer: Any = None) -> Pool:
    """Return the pool of a name.

    Args:
        name: "general", "none", a dataset that needs no files ("lab"), or a file of edits with
            probes.
        encoder: See `Pool`.
        model: See `Pool`.
        tokenizer: See `Pool`.

    Raises:
        UnknownName: There is no such dataset or file.
    """
    if name == NONE:
        return Pool([])
    if name == GENERAL:
        edits = _general()
    elif name in datasets.registry():
        edits = datasets.load(name, limit=_DRAWN, seed=_DRAWN)
    elif Path(name).exists():
        edits = datasets.read_edits(name)
    else:
        raise UnknownName("demonstrations", name, [GENERAL, NONE, *datasets.registry().names()])
    return Pool(edits, encoder, model=model, tokenizer=tokenizer)


@cache
def _general() -> tuple[Edit, ...]:
    return tuple(datasets.read_edits(Path(__file__).parent / "general.jsonl"))


def choose(
    pool: Pool,
    fact: str,
    *,
    count: int,
    ratio: Sequence[int],
    without: Sequence[str],
    seed: str,
) -> list[Demonstration]:
    """Choose demonstrations for one new fact, the most like last.

    Args:
        pool: What to choose from.
        fact: The new fact.
        count: How many, where the pool has that many.
        ratio: Parts of copy, update and retain.
        without: Subjects that no demonstration may name, since they are edited.
        seed: Which kind each fact gets, and which of its probes.

    Raises:
        InvalidInput: The ratio is not three numbers from 0 on with something above 0.
    """
    generator = random.Random(seed)
    edits = pool.nearest(fact, count, without)
    kinds = kinds_for(len(edits), ratio)
    generator.shuffle(kinds)
    made = [
        _demonstration(edit, kind, without, generator)
        for edit, kind in zip(edits, kinds, strict=True)
    ]
    return made[::-1]


def kinds_for(count: int, ratio: Sequence[int]) -> list[str]:
    """Divide a count among the kinds by the ratio, by largest remainders, in the kinds' order."""
    if len(ratio) != len(KINDS) or min(ratio) < 0 or not sum(ratio):
        raise InvalidInput(
            f"ratio is {tuple(ratio)}, expected parts of copy, update and retain, such as (1, 3, 4)"
        )
    exact = [count * part / sum(ratio) for part in ratio]
    whole = [math.floor(value) for value in exact]
    order = sorted(range(len(KINDS)), key=lambda i: (whole[i] - exact[i], i))
    for i in order[: count - sum(whole)]:
        whole[i] += 1
    return [kind for kind, number in zip(KINDS, whole, strict=True) for _ in range(number)]


def _demonstration(
    edit: Edit, kind: str, without: Sequence[str], generator: random.Random
) -> Demonstration:
    """Make a demonstration of the kind, or a copy where the edit has no probe for it."""
    group = {"update": "rephrase", "retain": "neighborhood"}.get(kind, "")
    probes = [p for p in edit.probes_of(group) if not _names(p, without)] if group else []
    if not probes:
        return Demonstration("copy", statement(edit), edit.text, edit.target)
    probe = generator.choice(probes)
    return Demonstration(kind, statement(edit), probe.prompt, probe.answers[0])


def _names(probe: Probe, subjects: Sequence[str]) -> bool:
    return any(subject in probe.prompt for subject in subjects)
