"""What units do: without them, with them amplified, and what becomes of an answer.

Dai et al. 2022, "Knowledge Neurons in Pretrained Transformers", arXiv 2104.08696, section 4.3.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from math import exp, nan
from typing import Any

import torch
from torch import nn

from emend.errors import InvalidInput
from emend.locate.neurons import Neuron
from emend.models import ModelView, score
from emend.models.hooks import hooked


@contextmanager
def scaled(
    view: ModelView, neurons: Iterable[Neuron], factor: float
) -> Generator[None, None, None]:
    """Multiply the activation of the given units by ``factor``, at all tokens, in the block.

    Raises:
        InvalidInput: The model has no such layer or unit.
    """
    units: dict[int, list[int]] = {}
    for layer, unit in neurons:
        units.setdefault(view.numbered([layer])[0], []).append(unit)
    with ExitStack() as stack:
        for layer, chosen in units.items():
            if not all(0 <= unit < view.intermediate_size(layer) for unit in chosen):
                raise InvalidInput(
                    f"units {chosen} of layer {layer}, expected some from 0 to "
                    f"{view.intermediate_size(layer) - 1}"
                )
            down = view.down_projection(layer)
            stack.enter_context(hooked(down, _scaling(chosen, factor), before=True))
        yield


def _scaling(units: list[int], factor: float) -> Callable[..., tuple[Any, ...]]:
    def scale(_module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        index = torch.tensor(units, device=args[0].device)
        return (args[0].index_copy(-1, index, args[0][..., index] * factor), *args[1:])

    return scale


@contextmanager
def suppress(view: ModelView, neurons: Iterable[Neuron]) -> Generator[None, None, None]:
    """The model without these units, for the time of the block."""
    with scaled(view, neurons, 0.0):
        yield


@contextmanager
def amplify(
    view: ModelView, neurons: Iterable[Neuron], factor: float = 2.0
) -> Generator[None, None, None]:
    """The model with these units amplified (twice as published), for the time of the block."""
    with scaled(view, neurons, factor):
        yield


@dataclass(frozen=True)
class Effect:
    """What units do to the probability of an answer; the means over prompts.

    Attributes:
        before: P(answer) in the model as it is.
        suppressed: P(answer) with the units set to zero.
        amplified: P(answer) with the units doubled.
    """

    before: float
    suppressed: float
    amplified: float

    @property
    def suppression(self) -> float:
        """Relative change of P(answer) by suppression (paper: -29.0% on average, BERT)."""
        return self._change(self.suppressed)

    @property
    def amplification(self) -> float:
        """Relative change of P(answer) by amplification (paper: +31.2% on average, BERT)."""
        return self._change(self.amplified)

    def _change(self, after: float) -> float:
        return after / self.before - 1 if self.before > 0 else nan

    def to_dict(self) -> dict[str, float]:
        """Plain data, for JSON."""
        names = ("before", "suppressed", "amplified", "suppression", "amplification")
        return {name: getattr(self, name) for name in names}


def effect(
    view: ModelView,
    tokenizer: Any,
    prompts: Sequence[str],
    answer: str,
    neurons: Sequence[Neuron],
) -> Effect:
    """Measure the units by the paper's own means: P(answer) without them and with them doubled.

    Raises:
        InvalidInput: No prompts, or a unit that the model has not.
    """
    if not prompts:
        raise InvalidInput("no prompts are given, expected at least one to measure with")

    def chance() -> float:
        scores = score(view.model, tokenizer, list(prompts), [answer] * len(prompts))
        return sum(exp(one.total) for one in scores) / len(scores)

    before = chance()
    with suppress(view, neurons):
        suppressed = chance()
    with amplify(view, neurons):
        amplified = chance()
    return Effect(before, suppressed, amplified)
