"""Does each edit of a patch take? The edited model is asked on the exact text of every edit."""

from __future__ import annotations

import copy
import logging
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from emend import models
from emend.edits import Edit
from emend.metrics._asking import ask
from emend.metrics._judging import exact_match
from emend.metrics._metric import Answer, Question
from emend.patches import Outcome, Patch, outcome_summary

if TYPE_CHECKING:
    from torch import nn

logger = logging.getLogger("emend")

NEGLIGIBLE = 0.05
"""Probability of a target below which an edit is taken to have had no effect on its text."""


def verify(
    model: nn.Module,
    tokenizer: Any,
    patch: Patch,
    *,
    batch_size: int = 32,
) -> tuple[Outcome, ...]:
    """Ask the edited model for each edit of a patch, in one batched pass.

    An edit took where the greedy continuation of its text is the target; see
    `emend.metrics.exact_match`.

    Args:
        model: The model that the patch is for; what is attached to it does not act here.
        tokenizer: Its tokenizer.
        patch: The patch.
        batch_size: Prompts per forward pass.

    Returns:
        One outcome for each edit, in the patch's order.
    """
    edits = patch.edits
    questions = [Question(edit.text, (edit.target,)) for edit in edits]
    texts, targets = [edit.text for edit in edits], [edit.target for edit in edits]
    with models.base(model):
        scored = edits and not isinstance(model, models.Endpoint)
        before = (
            models.score(model, tokenizer, texts, targets, batch_size=batch_size)
            if scored
            else [None] * len(edits)
        )
        with patch.applied(model):
            answers = ask(model, tokenizer, questions, batch_size=batch_size)
            bare = _bare(model, tokenizer, edits, batch_size)
    subjects = Counter(edit.subject for edit in edits)
    found: list[Outcome] = []
    for edit, question, score in zip(edits, questions, before, strict=True):
        answer = answers[question]
        took = bool(exact_match(answer, question.answers))
        after = _probability(answer.scores.get(edit.target))
        reason, remedy = "", ""
        if not took:
            reason, remedy = _reason(edit, after, subjects[edit.subject], tokenizer, patch)
        outcome = Outcome(
            *(edit.id, edit.text, edit.target, took),
            before=_probability(score),
            after=after,
            generated=answer.text,
            bare=bare.get(edit.text),
            reason=reason,
            remedy=remedy,
            language=edit.language,
            translation_of=edit.translation_of,
        )
        found.append(outcome)
    return tuple(found)


P = TypeVar("P", bound=Patch)


def verified(model: nn.Module, tokenizer: Any, patch: P) -> P:
    """Return the patch with the outcome of each of its edits; note those that did not take."""
    outcomes = verify(model, tokenizer, patch)
    missed = [one for one in outcomes if not one.took]
    if missed:
        more = f" (and {len(missed) - 1} more: see the patch's outcomes)" if missed[1:] else ""
        said = f"{outcome_summary(outcomes)}: {missed[0].describe()}{more}"
        logger.warning(said, extra={"outcomes": outcomes})  # commands print them their own way
    return replace(patch, outcomes=outcomes)


def _probability(score: models.Score | None) -> float | None:
    """Return a target's probability to four digits, so that no rounding of a pass shows."""
    if score is None:
        return None
    return float(f"{math.exp(score.total):.4g}") if math.isfinite(score.total) else 0.0


def _bare(
    model: nn.Module, tokenizer: Any, edits: Sequence[Edit], batch_size: int
) -> dict[str, str]:
    """Return what the model generates without the start token, for texts that need one."""
    start = models.start_of(tokenizer)
    if start is None or not start.ids:
        return {}
    texts = {edit.text: edit.target for edit in edits if edit.subject_span[0] == 0}
    if not texts:
        return {}
    without = copy.copy(tokenizer)
    models.set_start(without, None)
    questions = [Question(text, (target,)) for text, target in texts.items()]
    found: dict[Question, Answer] = ask(model, without, questions, batch_size=batch_size)
    return {question.prompt: found[question].text for question in questions}


def _reason(
    edit: Edit, after: float | None, sharing: int, tokenizer: Any, patch: Patch
) -> tuple[str, str]:
    """Return the likely reason why an edit did not take, and what to try."""
    start = models.start_of(tokenizer)
    begins = edit.subject_span[0] == 0
    if begins and start is not None and start.source == "none":
        return (
            "the subject begins the text, and no start token precedes it: a model reads "
            "no subject at position 0",
            "start_token='auto', or a prompt with some words before the subject",
        )
    if sharing > 1:
        return (
            f"{sharing} edits are of the subject {edit.subject!r}, and are written at one key",
            "fewer edits of one subject, or a memory such as grace or wise",
        )
    if after is not None and after < NEGLIGIBLE:
        return (
            f"{patch.method} hardly moves the target here",
            "another method (memit, ft, grace) or another layer",
        )
    steps = patch.config.get("steps")
    within = f" within {steps} steps" if steps else ""
    return (
        f"the target was not reached{within}",
        "more steps, a larger clamp, or another method (memit, ft, grace)",
    )
