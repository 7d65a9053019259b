"""Rows of TOFU's form: secrets made of them, and what unlearning practice measures on them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

from emend.datasets.tofu import PROMPT, TofuRow
from emend.erasure.metrics import (
    exact_memorization,
    extraction_strength,
    truth_ratio,
    truth_score,
)
from emend.erasure.secret import Secret
from emend.errors import InvalidInput
from emend.models import Score, chat_prompt, score

BATCH = 16


def secrets_of(rows: Iterable[TofuRow], *, template: str = PROMPT) -> tuple[Secret, ...]:
    """Make a secret of each row: its answer, and the first perturbed answer as the false one.

    Args:
        rows: The rows.
        template: How questions are asked, with one `{}` for the question.
    """
    found: list[Secret] = []
    for row in rows:
        asked = row.paraphrased_question
        found.append(
            Secret(
                *(row.prompt(template), row.subject, row.answer),
                next(iter(row.perturbed_answers), None),
                paraphrases=(template.replace("{}", asked),) if asked else (),
            )
        )
    return tuple(found)


@dataclass(frozen=True)
class Unlearning:
    """Measures of rows, one value of each for each row.

    Attributes:
        probability: P(answer | question)^(1 / tokens).
        truth_ratio: See `metrics.truth_ratio`; None for a row without perturbed answers.
        extraction_strength: See `metrics.extraction_strength`.
        exact_memorization: See `metrics.exact_memorization`.
    """

    probability: tuple[float, ...]
    truth_ratio: tuple[float | None, ...]
    extraction_strength: tuple[float, ...]
    exact_memorization: tuple[float, ...]

    def summary(self, of: Literal["forget", "retain"] = "forget") -> dict[str, float | None]:
        """Return the mean of each; of truth ratios the score (`metrics.truth_score`)."""
        ratios = [one for one in self.truth_ratio if one is not None]
        return {
            "probability": _mean(self.probability),
            "truth_ratio": truth_score(ratios, of=of) if ratios else None,
            "extraction_strength": _mean(self.extraction_strength),
            "exact_memorization": _mean(self.exact_memorization),
        }


def measure_rows(
    model: nn.Module,
    tokenizer: Any,
    rows: Sequence[TofuRow],
    *,
    mean: Literal["paper", "code"] = "paper",
    template: str | None = PROMPT,
    batch_size: int = BATCH,
) -> Unlearning:
    """Measure rows of TOFU's form on a model, with what is attached to it.

    Args:
        model: The model.
        tokenizer: Its tokenizer.
        rows: The rows.
        mean: The mean of the truth ratio; see `metrics.truth_ratio`. With "code" the end-of-text
            token counts as the last one of each answer, as OpenUnlearning counts it.
        template: How questions are asked, with one `{}` for the question; None for the tokenizer's
            chat template.
        batch_size: Rows in one forward pass.

    Raises:
        InvalidInput: There are no rows, or no chat template to ask in.
    """
    if not rows:
        raise InvalidInput("there are no rows, expected at least one")
    end = str(tokenizer.eos_token or "") if mean == "code" else ""
    asked = [_asked(tokenizer, row, template) for row in rows]

    def scored(pairs: Sequence[tuple[str, str]]) -> list[Score]:
        prompts, answers = [one for one, _ in pairs], [two for _, two in pairs]
        return score(model, tokenizer, prompts, answers, batch_size=batch_size)

    answers = scored([(prompt, row.answer) for prompt, row in zip(asked, rows, strict=True)])
    # One list, so that equal texts are run once.
    texts = [[row.answer, row.paraphrased_answer, *row.perturbed_answers] for row in rows]
    flat = [(p, f"{t}{end}") for p, several in zip(asked, texts, strict=True) for t in several]
    found = iter(scored(flat))
    whole = [[next(found) for _ in several] for several in texts]
    return Unlearning(
        tuple(math.exp(own.mean) for own, *_ in whole),
        tuple(
            truth_ratio(right, wrong, mean=mean) if wrong else None for _, right, *wrong in whole
        ),
        tuple(map(extraction_strength, answers)),
        tuple(map(exact_memorization, answers)),
    )


def _asked(tokenizer: Any, row: TofuRow, template: str | None) -> str:
    if template is None:
        return chat_prompt(tokenizer, row.question)
    return template.replace("{}", row.question)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
