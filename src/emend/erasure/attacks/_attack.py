"""What an attack is given, what it returns, and what describes it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from emend.erasure.secret import Secret


@dataclass(frozen=True)
class Case:
    """One question that an attack asks.

    Attributes:
        secret: What is asked for.
        is_control: Whether the prompt names another subject than the one that the answer belongs
            to, so that a success shows what can be guessed from the prompt alone.
    """

    secret: Secret
    is_control: bool = False


@dataclass(frozen=True)
class Given:
    """What every attack is given.

    Attributes:
        model: The model as it is, with any patch attached.
        tokenizer: Its tokenizer.
        cases: The secrets, and their controls.
        budget: B, the number of candidates that an attack may name for a secret.
        seed: Seed of every draw.
        layers: Layers to read states of; None takes the attack's own.
        batch_size: Rows in one forward pass.
    """

    model: nn.Module
    tokenizer: Any
    cases: Sequence[Case]
    budget: int = 20
    seed: int = 0
    layers: tuple[int, ...] | None = None
    batch_size: int = 32


@dataclass(frozen=True)
class Attempt:
    """What an attack found of one case.

    Attributes:
        found: Whether the answer is among the candidates.
        tokens: Number of tokens of the answer; 0 where it was compared as text.
        tokens_found: How many of them were among the candidates of their position.
        candidates: The candidates as texts; of an answer of several tokens, those of the first.
            Empty where draws were compared by their probability.
        probability: Where candidates are drawn, the probability that one draw is the answer.
    """

    found: bool
    tokens: int = 0
    tokens_found: int = 0
    candidates: tuple[str, ...] = ()
    probability: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain data, for JSON."""
        return {
            "found": self.found,
            "tokens": self.tokens,
            "tokens_found": self.tokens_found,
            "candidates": list(self.candidates),
            "probability": self.probability,
        }


@dataclass(frozen=True)
class Found:
    """What an attack found of all cases.

    Attributes:
        attempts: One for each case.
        how: How the budget was spent: "layers 10, 14, 18, 22, 29, top 4 of each".
    """

    attempts: Sequence[Attempt]
    how: str = ""


@dataclass(frozen=True)
class Attack:
    """An attack, found by the name of its file.

    Attributes:
        name: The name of its module.
        title: One line that says what it does.
        paper: Where it is from.
        run: Attack all cases.
        needs_states: Whether it reads states inside the model.
        least_budget: The smallest budget with which it can name anything.
        least_secrets: The smallest number of secrets with which it can be run.
    """

    name: str
    title: str
    paper: str
    run: Callable[[Given], Found]
    needs_states: bool = False
    least_budget: int = field(default=1, kw_only=True)
    least_secrets: int = field(default=1, kw_only=True)
