"""The lab: a closed synthetic world, its language, and small models that know it.

It runs offline on a laptop's CPU in seconds. Numbers from the lab hold for the lab only. By file:

    world, language, speech       entities and facts; relations, words and wordings
    corpus, hops, tokenizer       the documents of the training corpus, and chains of facts
    architectures, training, losses   the models (`emend lab train`)
    consequences                  edits with their probes, and multi-hop questions
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from emend.errors import UnknownName
from emend.lab import corpus
from emend.lab.world import World, build_world

WEIGHTS = Path(__file__).parent / "weights"
SEED = 0
"""Seed of the world that the shipped models know."""

_LAYOUT = "New fact: {fact}\nPrompt: {prompt}"
SETTINGS: dict[str, dict[str, Any]] = {
    "ike": {"contrast": 0.5, "k": 0, "layout": _LAYOUT},
    "mello": {
        "examples": "none",
        "layout": _LAYOUT,
        "new_tokens": 80,
        "threshold": 1.0,  # only facts whose subject is named: the models take any fact for one
    },
}
"""Settings of in-context methods by which the lab's models read: the layouts of `hops.py`, which
they were trained on."""


def names() -> list[str]:
    """Return the names of the models that ship with the package."""
    if not WEIGHTS.is_dir():
        return []
    return sorted(path.parent.name for path in WEIGHTS.glob("*/config.json"))


def path(name: str) -> Path:
    """Return the directory of a shipped model.

    Args:
        name: Such as `gptneo`, without the `lab/` in front.

    Raises:
        UnknownName: No such model ships.
    """
    if name not in names():
        raise UnknownName("lab model", name, names())
    return WEIGHTS / name


def card(name: str) -> dict[str, Any]:
    """Return the measurements of a shipped model (recall, causal trace) and its training.

    Args:
        name: Such as `gptneo`.

    Raises:
        UnknownName: No such model ships.
    """
    return json.loads((path(name) / "card.json").read_bytes())


@cache
def shipped_world() -> World:
    """Return the world that the shipped models know."""
    return build_world(SEED)


def corpus_texts(count: int, seed: int = 0) -> list[str]:
    """Return texts of the corpus, from draws that no training step used.

    Args:
        count: Number of documents.
        seed: Seed of the draw.
    """
    return corpus.corpus_texts(shipped_world(), count, seed)
