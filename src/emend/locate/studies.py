"""A fact's knowledge neurons, and what they do by the paper's own measure.

Dai et al. 2022, "Knowledge Neurons in Pretrained Transformers", arXiv 2104.08696, sections 3 and 4.
Beside them stand as many units of the same layers, drawn at random: what those do is what any
units would.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from emend.errors import InvalidInput
from emend.locate.interventions import Effect, effect
from emend.locate.neurons import Neuron, attribute_tokens, coarse, refine, same_size_layers
from emend.models import ModelView, join_targets


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
        """Plain data, for JSON."""
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
        threshold: t; a unit of one wording's coarse set has more than t of the largest
            attribution.
        share: p; a unit is kept when it is in the coarse sets of more than p of the wordings.
        steps: Steps of the integration.
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
    weighed = sorted(
        ((float(means[layers.index(layer), unit]), (layer, unit)) for layer, unit in found),
        key=lambda pair: (-pair[0], pair[1]),
    )
    units = tuple(unit for _, unit in weighed)
    drawn = _drawn(view, units, seed)
    return Study(
        tuple(prompts),
        answer,
        units,
        tuple(value for value, _ in weighed),
        effect(view, tokenizer, prompts, answer, units),
        effect(view, tokenizer, prompts, answer, drawn),
    )


def _drawn(view: ModelView, units: Sequence[Neuron], seed: int) -> list[Neuron]:
    """As many units of each layer, drawn at random."""
    generator = random.Random(f"units-{seed}")
    counts = Counter(layer for layer, _ in units)
    return [
        (layer, unit)
        for layer, count in sorted(counts.items())
        for unit in generator.sample(range(view.intermediate_size(layer)), count)
    ]
