"""Average effects over many facts, by what a token is to the subject and by layer.

Meng et al. 2022, arXiv 2202.05262, section 2: the average total effect (ATE) and the average
indirect effect (AIE) over facts that the model knows, with intervals of 1.96 standard errors.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from math import sqrt
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from emend._progress import progress
from emend.errors import InvalidInput
from emend.locate.facts import Asked, Question, asked
from emend.locate.tracing import Settings, Trace, embedded, settings_of, traced
from emend.models import ModelView, top1

ROLES = (
    "first_subject",
    "middle_subject",
    "last_subject",
    "first_after",
    "further",
    "last_token",
)
"""What a token is: the subject's first one, those between, its last, the first after it, further
ones, and the last of the prompt. A token is one of them only: the last of the prompt before the
subject's last before its first. Tokens before the subject have none, and no effect."""

NORMAL = 1.96
"""Standard errors on each side of a mean that make an interval of 95%."""

BATCH = 64
"""Questions that are asked at once."""


class Mean(NamedTuple):
    """A mean over facts with its interval of 95%, by layer.

    Attributes:
        mean: (layers,).
        margin: (layers,), 1.96 standard errors; NaN for a single fact.
        facts: Over how many facts: not every prompt has every role.
    """

    mean: Tensor
    margin: Tensor
    facts: int


@dataclass(frozen=True)
class AverageEffects:
    """Effects over many facts.

    Attributes:
        traces: Those of the facts that were traced.
        asked: How many facts were given; the others were not known, or not needed.
        settings: How they were made.
    """

    traces: tuple[Trace, ...]
    asked: int
    settings: Settings

    @property
    def total(self) -> tuple[float, float]:
        """The average total effect, and half of its interval of 95%."""
        mean = mean_of(torch.tensor([[one.total] for one in self.traces]))
        return float(mean.mean), float(mean.margin)

    @property
    def caveat(self) -> str | None:
        """One line where noise takes nothing away from the answers of some facts. Else None."""
        idle = sum(one.caveat is not None for one in self.traces)
        if not idle:
            return None
        rest = (
            "so that the averages mean nothing: change noise, draws or seed"
            if 2 * idle >= len(self.traces)
            else "which have nothing to bring back and draw the averages towards 0"
        )
        return (
            f"noise at the subject does not lower the answer's probability in {idle} of "
            f"{len(self.traces)} facts, {rest}"
        )

    def by_role(self, kind: str) -> dict[str, Mean]:
        """Average indirect effects of one kind, by role and layer."""
        collected: dict[str, list[Tensor]] = {role: [] for role in ROLES}
        for one in self.traces:
            for role, effects in effects_by_role(one, kind).items():
                collected[role].append(effects)
        return {role: mean_of(torch.stack(rows)) for role, rows in collected.items() if rows}

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain data, for JSON."""
        total, margin = self.total
        effects: dict[str, Any] = {}
        for kind in self.settings.kinds:
            effects[kind] = {
                role: {"mean": mean.tolist(), "margin": margin.tolist(), "facts": facts}
                for role, (mean, margin, facts) in self.by_role(kind).items()
            }
        return {
            "facts": len(self.traces),
            "asked": self.asked,
            "total": total,
            "total_margin": margin,
            "caveat": self.caveat,
            "approximate": self.settings.approximate,
            "noise": self.settings.noise,
            "deviation": self.traces[0].deviation,
            "draws": self.settings.draws,
            "window": self.settings.window,
            "effects": effects,
        }


def mean_of(rows: Tensor) -> Mean:
    """Average (facts, layers) over facts, with a margin."""
    count = len(rows)
    spread = rows.std(0) if count > 1 else torch.full_like(rows[0], torch.nan)
    return Mean(rows.mean(0), NORMAL * spread / sqrt(count), count)


def role_of(token: int, first: int, last: int, length: int) -> str | None:
    """Name what a token of a prompt is to its subject; None before it."""
    if token < first:
        return None
    if token == length - 1:
        return "last_token"
    if token > last:
        return "first_after" if token == last + 1 else "further"
    if token == last:
        return "last_subject"
    return "first_subject" if token == first else "middle_subject"


def effects_by_role(found: Trace, kind: str) -> dict[str, Tensor]:
    """Average the effects over the tokens of each role of a prompt, (layers,) each."""
    effects = found.effects[kind]
    tokens: dict[str, list[int]] = {}
    for token in range(len(effects)):
        role = role_of(token, found.first, found.last, len(effects))
        if role is not None:
            tokens.setdefault(role, []).append(token)
    return {role: effects[places].mean(0) for role, places in tokens.items()}


def trace_many(
    model: nn.Module,
    tokenizer: Any,
    questions: Iterable[Question],
    *,
    limit: int | None = None,
    known_only: bool = True,
    **settings: Any,
) -> AverageEffects:
    """Trace many facts and average.

    Args:
        model: A causal language model. It is not changed.
        tokenizer: Its tokenizer, a fast one.
        questions: (prompt, subject, answer) each; see `trace`.
        limit: Number of facts to trace; None traces all.
        known_only: Trace only facts whose answer's first token is top1, as published.
        settings: As for `trace`; the default deviation is that of all subjects together.

    Raises:
        InvalidInput: No questions, or none that the model knows.
        EmendError: As `trace`.
    """
    chosen = settings_of(settings)
    view = ModelView(model)
    all_asked = [asked(view, tokenizer, *question) for question in questions]
    if not all_asked:
        raise InvalidInput("no questions are given, expected some facts to trace")
    if chosen.deviation is None:
        chosen = replace(chosen, deviation=_deviation(view, all_asked))
    known = list(islice(_known(view, tokenizer, all_asked, known_only), limit))
    if not known:
        raise InvalidInput(
            f"the model gives none of the {len(all_asked)} answers, expected facts that it knows: "
            "ask about others, or set known_only=False"
        )
    traces = [traced(view, tokenizer, one, chosen) for one in progress(known, "tracing facts")]
    found = AverageEffects(tuple(traces), len(all_asked), chosen)
    if found.caveat:
        warnings.warn(found.caveat, stacklevel=2)
    return found


def _deviation(view: ModelView, questions: Sequence[Asked]) -> float:
    return float(torch.cat([embedded(view, one) for one in questions]).std())


def _known(
    view: ModelView, tokenizer: Any, questions: Sequence[Asked], known_only: bool
) -> Iterator[Asked]:
    """Yield the questions whose answer the model generates, a batch at a time."""
    if not known_only:
        yield from questions
        return
    for start in range(0, len(questions), BATCH):
        batch = questions[start : start + BATCH]
        said = top1(view.model, tokenizer, [one.prompt for one in batch])
        for one, (token, _) in zip(batch, said, strict=True):
            if one.answer is None or one.answer == token:
                yield one
