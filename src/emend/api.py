"""The verbs that people import: load, edit, evaluate, and what goes with them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from emend import methods
from emend.datasets import read_edits, write_edits
from emend.edits import Edit, Probe, check_edits
from emend.ledger import Ledger
from emend.locate import trace, trace_many
from emend.metrics import Report, evaluate, evaluate_each, verified
from emend.metrics import cost_of as _cost_of
from emend.models import load
from emend.patches import Patch, audit, describe_base, load_patch
from emend.probes import Source, blast_radius, check_source

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedTokenizerBase

    from emend.metrics import Cost

__all__ = [
    "Edit",
    "Ledger",
    "Patch",
    "Probe",
    "Report",
    "audit",
    "edit",
    "evaluate",
    "evaluate_each",
    "load",
    "load_patch",
    "read_edits",
    "trace",
    "trace_many",
    "write_edits",
]


def edit(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    edits: Iterable[Edit],
    method: str | methods.Method = "rome",
    *,
    previous: Patch | None = None,
    continues: methods.Continuation | None = None,
    probes: Source = "none",
    **config: Any,
) -> Patch:
    """Make a patch that changes what a model says. The model itself is left as it is.

    Args:
        model: A causal language model of Hugging Face's kind.
        tokenizer: Its tokenizer.
        edits: What to change.
        method: Name of a method, or the `Method` itself; ``emend methods`` lists the names.
        previous: A patch to continue; the new one holds its edits too. Methods that are
            order-invariant make what they would have made of all edits at once; with others (see
            ``emend methods``) the new edits are made on top of the earlier ones.
        continues: "sequential" makes the new edits on the edited model, as published codes do a
            sequence, whatever the method's own way is; see `About.continues`.
        probes: What the patch is checked with for what else it changes: "auto" (the edits' own
            probes, and made ones for edits without), "given" (their own alone) or "none". What
            was found is ``patch.blast``; see `emend.probes.blast_radius`, which measures the same
            of any patch.
        config: Settings of the method that differ from its defaults.

    Returns:
        The patch, with the time that it took, the model it is for and what became of each edit
        (``patch.outcomes``: the edited model was asked on the exact text of each). Attach it with
        ``with patch.applied(model):``. Edits that did not take are noted as a warning of the
        logger ``emend``; the patch is returned all the same.

    Raises:
        InvalidInput: No edits, two with the same id, two that want different things of one
            statement, a previous patch that cannot be continued, or another word for `probes`.
        UnknownName: There is no such method or setting.
        SubjectNotFound: The tokenizer gives a subject no token of its own.
        NumericalFailure: The search or the solution diverged.
    """
    check_source(probes)
    edits = check_edits(edits)
    chosen = methods.find(method)
    with _cost_of(model) as cost:
        patch = chosen.edit(
            model, tokenizer, edits, previous=previous, continues=continues, **config
        )
    patch = verified(model, tokenizer, _with_card(patch, model, cost, len(edits)))
    if probes == "none":
        return patch
    return replace(patch, blast=blast_radius(model, tokenizer, patch, probes))


def _with_card(patch: Patch, model: nn.Module, cost: Cost, count: int) -> Patch:
    """Return the patch with its timing, where the method has not set it itself."""
    precompute = patch.timing.get("precompute", 0.0)
    timing = {
        "edits": count,
        "precompute": precompute,
        "search": cost.seconds - precompute,
        "per_edit": (cost.seconds - precompute) / count,
        "peak_memory_bytes": cost.peak_memory_bytes,
        **patch.timing,
    }
    return replace(patch, timing=timing, base=patch.base or describe_base(model))
