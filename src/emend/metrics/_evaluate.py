"""Evaluation inside ``patch.applied(model)``: every measure, before and after."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from emend import models
from emend.edits import Edit, check_edits, statements_of
from emend.errors import InvalidInput
from emend.metrics._ask import ask
from emend.metrics._plan import chosen, items_of, records_of
from emend.metrics._report import Report
from emend.metrics._settings import joined_timing, settings_of
from emend.patches import Patch

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedTokenizerBase


def evaluate(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    edits: Iterable[Edit],
    *,
    metrics: Iterable[str] | None = None,
    batch_size: int = 32,
    seconds_per_edit: float | None = None,
) -> Report:
    """Measure what the patches attached to ``model`` change.

    Call it inside ``with patch.applied(model):``. Every different prompt is asked once with all
    patches suspended (before) and once with them acting (after), in batches.

    Args:
        model: The causal language model with its patches attached.
        tokenizer: Its tokenizer.
        edits: The edits to ask about, with their probes; all are in the patch at once
            (schedule "batch"). Translations are asked about as edits of their own.
        metrics: Names of measures; None for all.
        batch_size: Prompts per forward pass; the results do not depend on it.
        seconds_per_edit: What an edit took, where the patch does not say.

    Returns:
        Records and summary.

    Raises:
        InvalidInput: No edits, two with the same id, or a batch size below 1.
        UnknownName: There is no such measure.
    """
    edits, measures = statements_of(check_edits(edits)), chosen(metrics)
    if batch_size < 1:
        raise InvalidInput(f"batch_size is {batch_size}, expected 1 or more: raise it")
    patches = attached_patches(model)
    items = items_of(edits, measures)
    questions = [item.question for item in items]
    with models.base(model):
        before = ask(model, tokenizer, questions, batch_size=batch_size)
    after = ask(model, tokenizer, questions, batch_size=batch_size) if patches else before
    timing = joined_timing([patch.timing for patch in patches], len(edits))
    if seconds_per_edit is not None:
        timing = {"edits": len(edits), **timing, "per_edit": seconds_per_edit}
    return Report(
        records=records_of(items, before, after, "batch"),
        metrics=[measure.name for measure in measures],
        settings=settings_of(model, patches, "batch", len(edits), batch_size),
        timing=timing,
    )


def attached_patches(model: nn.Module) -> list[Patch]:
    """The patches attached to the model, in order."""
    return [
        attachment.patch
        for attachment in models.attachments(model)
        if isinstance(attachment.patch, Patch)
    ]
