"""Pronouns after occupations: how far apart P(he) and P(she) are.

A prompt is a template with an occupation, such as "The nurse was late because". The gap is the
mean over all prompts of |P(he) - P(she)|, the probabilities of the next token; its other form is
the mean of |log P(he) / P(she)|, in nats, which does not depend on how probable a pronoun is.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from emend.errors import InvalidInput
from emend.fairness._estimates import Compared, Numbers, Summarise, estimates
from emend.fairness.occupations import Occupations
from emend.models import ensure_start, join_target
from emend.models.scoring import next_log_probs
from emend.patches import Patch


@dataclass(frozen=True)
class PronounReport:
    """The gap between two pronouns over occupations and templates.

    Attributes:
        pair: The pronouns.
        prompts: Number of prompts.
        measures: "gap" (mean |P(he) - P(she)|), "log_ratio" (mean |log P(he)/P(she)|, nats), "lean"
            (mean log P(he)/P(she)) and "mass" (mean P(he) + P(she)). Intervals are over
            occupations.
        by_occupation: Mean P(he) - P(she) of each occupation, before and after.
    """

    pair: tuple[str, str]
    prompts: int
    measures: Compared
    by_occupation: dict[str, tuple[float, float | None]] = field(repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {
            "pair": list(self.pair),
            "prompts": self.prompts,
            **self.measures.to_dict(),
            "by_occupation": {
                name: {"before": before, "after": after}
                for name, (before, after) in self.by_occupation.items()
            },
        }


def pronoun_gap(
    model: Any,
    tokenizer: Any,
    subjects: Occupations,
    patch: Patch | None = None,
    *,
    batch_size: int = 32,
) -> PronounReport:
    """Measure the gap between two pronouns over all occupations and templates.

    Args:
        model: A causal language model; what is attached to it acts.
        tokenizer: Its tokenizer.
        subjects: Occupations, templates and the pair of pronouns.
        patch: Measure before and after it; the model is left as it is.
        batch_size: Prompts in one pass.

    Raises:
        InvalidInput: The tokenizer splits a pronoun, or both begin with one token.
    """
    before = pair_log_probs(model, tokenizer, subjects, batch_size)
    after = None
    if patch is not None:
        with patch.applied(model):
            after = pair_log_probs(model, tokenizer, subjects, batch_size)
    lean = _lean(before)
    changed = None if after is None else _lean(after)
    return PronounReport(
        subjects.pair,
        before.shape[0] * before.shape[1],
        estimates(len(before), _measures(before), None if after is None else _measures(after)),
        {
            name: (float(lean[n]), None if changed is None else float(changed[n]))
            for n, name in enumerate(subjects.occupations)
        },
    )


def pair_log_probs(
    model: Any, tokenizer: Any, subjects: Occupations, batch_size: int = 32
) -> Numbers:
    """Return log P of the two pronouns, (occupations, templates, 2), in nats."""
    ensure_start(model, tokenizer)
    tokens = pair_tokens(tokenizer, subjects)
    found = next_log_probs(model, tokenizer, subjects.prompts, tokens, batch_size=batch_size)
    return np.array(found).reshape(len(subjects.occupations), len(subjects.templates), 2)


def pair_tokens(tokenizer: Any, subjects: Occupations) -> tuple[int, int]:
    """Return the tokens of the two pronouns after a prompt.

    Raises:
        InvalidInput: The tokenizer splits one, or gives both the same token.
    """
    prompt = subjects.prompts[0]
    ids = [join_target(tokenizer, prompt, word)[1] for word in subjects.pair]
    if any(len(each) > 1 for each in ids) or ids[0] == ids[1]:
        raise InvalidInput(
            f"the tokenizer writes {' and '.join(map(repr, subjects.pair))} as {ids}, expected "
            "two different single tokens: choose another pair of pronouns"
        )
    return ids[0][0], ids[1][0]


def _measures(log_probs: Numbers) -> Summarise:
    probabilities = np.exp(log_probs)
    ratio = log_probs[..., 0] - log_probs[..., 1]  # (occupations, templates)
    values = {
        "gap": np.abs(probabilities[..., 0] - probabilities[..., 1]).mean(1),
        "log_ratio": np.abs(ratio).mean(1),
        "lean": ratio.mean(1),
        "mass": probabilities.sum(-1).mean(1),
    }

    def summarise(weights: Numbers) -> dict[str, Numbers]:
        return {name: (weights @ each) / weights.sum(1) for name, each in values.items()}

    return summarise


def _lean(log_probs: Numbers) -> Numbers:
    """Return the mean of P(he) - P(she) of each occupation."""
    probabilities = np.exp(log_probs)
    return (probabilities[..., 0] - probabilities[..., 1]).mean(1)
