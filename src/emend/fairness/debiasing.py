"""Make two pronouns equally probable after occupations, by an edit.

Two ways. A method of editing (`memit`, `alphaedit`, `rome`, `ft`) with the aim `EvenPair` edits
each occupation at its own last token, for all templates at once: what it writes is for these
occupations. "shared" (`emend.fairness.shared`) trains one low-rank change on all occupations and
templates together; trained on many, it also acts on others.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from emend import methods
from emend.editing.aims import Aim, Scored
from emend.edits import Edit
from emend.fairness.occupations import Occupations
from emend.fairness.pronouns import pair_tokens
from emend.fairness.shared import SHARED, SharedSettings, train_shared
from emend.models import base, ensure_start
from emend.patches import Patch


@dataclass(frozen=True)
class EvenPair:
    """Aim: two tokens are equally probable at the prompt's last position.

    The loss is 4 log cosh(d / 2), d the difference of their logits: about d^2 / 2 where they are
    near, and linear far from it. It does not depend on other logits, and its gradient raises one
    as it lowers the other, so that their total probability hardly moves.

    Attributes:
        first: One token.
        second: The other.
        enough: |log P(first) / P(second)| at which they count as even.
        layers: None are read.
        rephrasings: None are scored.
        stops: See `emend.editing.Aim`.
    """

    first: int
    second: int
    enough: float = 0.1
    layers: tuple[int, ...] = ()
    rephrasings: int = 0
    stops: bool = True

    @property
    def name(self) -> str:
        """The name in records."""
        return "even_pair"

    def loss(self, scored: Scored) -> Tensor:
        """Return 4 log cosh(d / 2) at each position, (N,)."""
        half = self._difference(scored) / 2
        return 4 * (F.softplus(2 * half) - half - math.log(2))

    def reached(self, scored: Scored) -> Tensor:
        """Return where the two are even, (N,) bool."""
        return self._difference(scored).detach().abs() <= self.enough

    def record(self) -> dict[str, Any]:
        """Return name and settings."""
        pair = {"first": self.first, "second": self.second}
        return {"name": self.name, **pair, "enough": self.enough}

    def _difference(self, scored: Scored) -> Tensor:
        return scored.logits[:, self.first].float() - scored.logits[:, self.second].float()


def debias(
    model: Any, tokenizer: Any, subjects: Occupations, method: str = SHARED, **config: Any
) -> Patch:
    """Make a patch after which the two pronouns are equally probable. The model is not changed.

    Args:
        model: A causal language model; what is attached to it does not act.
        tokenizer: Its tokenizer.
        subjects: Occupations, templates and the pair; contrasts are preserved by "shared".
        method: "shared", or a method of editing that takes an aim.
        config: Settings of the method (`SharedSettings`) that differ from its defaults.

    Raises:
        InvalidInput: The tokenizer splits a pronoun, or the method takes no aim.
        UnknownName: There is no such method or setting.
    """
    ensure_start(model, tokenizer)
    first, second = pair_tokens(tokenizer, subjects)
    if method == SHARED:
        with base(model):
            return train_shared(model, tokenizer, subjects, SharedSettings(**config))
    edits = [
        Edit(template, occupation, subjects.pair[0])
        for occupation in subjects.occupations
        for template in subjects.templates
    ]
    aim: Aim = EvenPair(first, second)
    return methods.find(method).edit(model, tokenizer, edits, aim=aim, **config)
