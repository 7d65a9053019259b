"""Evaluation before and after: of all edits at once, or of each edit alone."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from emend import models
from emend._progress import progress
from emend.edits import Edit, check_edits, statements_of
from emend.errors import InvalidInput
from emend.metrics._asking import ask, chosen, items_of, records_of
from emend.metrics._metric import Record
from emend.metrics._report import Report, joined_timing, settings_of
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
        metrics: Names of measures; None for all but `fluency`, whose long texts cost the most.
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
    """Return the patches attached to the model, in order."""
    return [
        attachment.patch
        for attachment in models.attachments(model)
        if isinstance(attachment.patch, Patch)
    ]


def evaluate_each(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    edits: Iterable[Edit],
    patches: Callable[[Edit], Patch] | Mapping[str, Patch] | Patch,
    *,
    metrics: Iterable[str] | None = None,
    batch_size: int = 32,
) -> Report:
    """Measure each edit with its own patch alone on the unedited model (schedule "single").

    The answers before are got in one batched pass for all edits together.

    Args:
        model: The causal language model; patches attached to it are suspended meanwhile.
        tokenizer: Its tokenizer.
        edits: The edits, with their probes. One with translations is measured in each language
            with all of them in its patch.
        patches: What gives an edit's own patch: a function of the edit (which is timed), a
            mapping by edit id, or one patch of which each edit can be taken alone.
        metrics: Names of measures; None for all but `fluency`, whose long texts cost the most.
        batch_size: Prompts per forward pass; the results do not depend on it.

    Returns:
        Records and summary over all edits.

    Raises:
        InvalidInput: No edits, two with the same id, or a patch that cannot be split.
        UnknownName: There is no such measure, or the patches lack an edit.
    """
    edits, measures = check_edits(edits), chosen(metrics)
    if batch_size < 1:
        raise InvalidInput(f"batch_size is {batch_size}, expected 1 or more: raise it")
    patch_of = _patch_function(patches)
    records: list[Record] = []
    used: list[Patch] = []
    timings: list[Mapping[str, Any]] = []
    with models.base(model):
        everything = [item.question for item in items_of(statements_of(edits), measures)]
        before = ask(model, tokenizer, everything, batch_size=batch_size)
        for edit in progress(edits, "evaluating each edit", total=len(edits)):
            started = time.perf_counter()
            patch = patch_of(edit)
            seconds = time.perf_counter() - started
            items = items_of(statements_of([edit]), measures)
            with patch.applied(model):
                after = ask(model, tokenizer, [i.question for i in items], batch_size=batch_size)
            records += records_of(items, before, after, "single")
            used.append(patch)
            timings.append(patch.timing or _timed(patches, seconds))
    timing = patches.timing if isinstance(patches, Patch) else None
    return Report(
        records=records,
        metrics=[measure.name for measure in measures],
        settings=settings_of(model, used, "single", len(edits), batch_size),
        timing=timing or joined_timing(timings, len(edits)),
    )


def _patch_function(
    patches: Callable[[Edit], Patch] | Mapping[str, Patch] | Patch,
) -> Callable[[Edit], Patch]:
    if isinstance(patches, Patch):
        return lambda edit: patches.only(edit.id)
    if isinstance(patches, Mapping):
        return lambda edit: _looked_up(patches, edit)
    return patches


def _looked_up(patches: Mapping[str, Patch], edit: Edit) -> Patch:
    if edit.id not in patches:
        raise InvalidInput(
            f"there is no patch for edit {edit.id!r}, expected one for each edit: add it"
        )
    return patches[edit.id]


def _timed(patches: object, seconds: float) -> dict[str, Any]:
    """Return a function's own time; looking a patch up shows nothing of what it took to make."""
    return {"per_edit": seconds, "edits": 1} if callable(patches) else {}
