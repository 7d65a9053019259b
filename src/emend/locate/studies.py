"""What knowledge neurons do: suppress or amplify units, and measure what becomes of an answer.

Dai et al. 2022, "Knowledge Neurons in Pretrained Transformers", arXiv 2104.08696, sections 3 and
4. As a control, as many units of the same layers are drawn at random: their effect is any units'
effect.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from math import exp, nan
from typing import Any

import torch
from torch import nn

from emend.errors import InvalidInput
from emend.locate.neurons import Neuron, attribute_tokens, coarse, refine, same_size_layers
from emend.models import ModelView, join_targets, score
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
    """Set units to zero inside the block."""
    with scaled(view, neurons, 0.0):
        yield


@contextmanager
def amplify(
    view: ModelView, neurons: Iterable[Neuron], factor: float = 2.0
) -> Generator[None, None, None]:
    """Amplify units inside the block (doubled, as published)."""
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
        """Convert to plain data, for JSON."""
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


@dataclass(frozen=True)
class Study:
    """What was found for one fact.

    Attributes:
        prompts: Its wordings.
        answer: Its answer.
        units: (layer, unit) of its knowledge neurons, the strongest first.
        attributions: Of each of them, the mean over wordings, in probability.
        effect: What they do to the probability of the answer.
        control: What as many units of the same layers do, drawn at random.
    """

    prompts: tuple[str, ...]
    answer: str
    units: tuple[Neuron, ...]
    attributions: tuple[float, ...]
    effect: Effect
    control: Effect

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain data, for JSON."""
        units = [
            {"layer": layer, "unit": unit, "attribution": value}
            for (layer, unit), value in zip(self.units, self.attributions, strict=True)
        ]
        return {
            "prompts": list(self.prompts),
            "answer": self.answer,
            "units": units,
            "effect": self.effect.to_dict(),
            "control": self.control.to_dict(),
        }


def study(
    view: ModelView,
    tokenizer: Any,
    prompts: Sequence[str],
    answer: str,
    *,
    threshold: float = 0.2,
    share: float = 0.5,
    steps: int = 20,
    seed: int = 0,
) -> Study:
    """Find the units that carry a fact, and measure what they do.

    Args:
        view: The model.
        tokenizer: Its tokenizer.
        prompts: Wordings of the fact up to the answer; about ten are recommended.
        answer: Its answer.
        threshold: As for `knowledge_neurons`.
        share: As for `knowledge_neurons`.
        steps: As for `attribute`.
        seed: Of the units drawn to compare with.

    Raises:
        InvalidInput: No prompts, a threshold or share out of range, or fewer than one step.
        NumericalFailure: An attribution is not finite.
    """
    if not prompts:
        raise InvalidInput("no prompts are given, expected at least one wording of the fact")
    for name, value in (("threshold", threshold), ("share", share)):
        if not 0 <= value < 1:
            raise InvalidInput(f"{name} is {value}, expected a number from 0 to below 1")
    layers = same_size_layers(view)
    pairs = join_targets(tokenizer, list(prompts), [answer] * len(prompts))
    maps = attribute_tokens(view, pairs, steps=steps, layers=layers)
    found = refine([coarse(one, threshold, layers) for one in maps], share)
    means = maps.mean(0)
    values = {(layer, unit): float(means[layers.index(layer), unit]) for layer, unit in found}
    units = tuple(sorted(values, key=lambda unit: (-values[unit], unit)))
    drawn = _drawn(view, units, seed)
    own, control = (effect(view, tokenizer, prompts, answer, some) for some in (units, drawn))
    weights = tuple(values[unit] for unit in units)
    return Study(tuple(prompts), answer, units, weights, own, control)


def _drawn(view: ModelView, units: Sequence[Neuron], seed: int) -> list[Neuron]:
    """Draw as many units of each layer at random."""
    generator = random.Random(f"units-{seed}")
    counts = Counter(layer for layer, _ in units)
    return [
        (layer, unit)
        for layer, count in sorted(counts.items())
        for unit in generator.sample(range(view.intermediate_size(layer)), count)
    ]
