"""The lab: a closed synthetic world, its language, and small models that know it.

Everything here runs offline on a laptop's CPU in seconds. Numbers from the lab are about the lab.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emend.errors import UnknownName

if TYPE_CHECKING:
    from emend.lab.world import World

WEIGHTS = Path(__file__).parent / "weights"
SEED = 0
"""Seed of the world that the shipped models know."""


def names() -> list[str]:
    """Names of the models that ship with the package."""
    if not WEIGHTS.is_dir():
        return []
    return sorted(path.parent.name for path in WEIGHTS.glob("*/config.json"))


def path(name: str) -> Path:
    """Directory of a shipped model.

    Args:
        name: Such as `gptneo`, without the `lab/` in front.

    Raises:
        UnknownName: If no such model ships.
    """
    if name not in names():
        raise UnknownName("lab model", name, names())
    return WEIGHTS / name


def card(name: str) -> dict[str, Any]:
    """What was measured on a shipped model: recall, causal trace, and how it was made.

    Args:
        name: Such as `gptneo`.

    Raises:
        UnknownName: If no such model ships.
    """
    return json.loads((path(name) / "card.json").read_bytes())


@cache
def shipped_world() -> World:
    """The world that the shipped models know."""
    from emend.lab.world import build_world

    return build_world(SEED)


def corpus_texts(count: int, seed: int = 0) -> list[str]:
    """Texts of the corpus, from draws that no training step used.

    Args:
        count: Number of documents.
        seed: Seed of the draw.
    """
    from emend.lab.corpus import corpus_texts as texts

    return texts(shipped_world(), count, seed)
