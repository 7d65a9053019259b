"""Subject drift: how far what the model states of an edit's subject moves.

An edit of one fact ought to leave alone what else the model states of its subject. The unedited
model continues general prompts about the subject, and the drift is the mean over the tokens of
these statements of KL(before || after), in nats, each token given those before it. What follows
from the edited fact has to change, so that some drift is right: compare methods by it.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch.nn.functional as F

from emend import models
from emend.edits import Edit, check_edits

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedTokenizerBase

GENERAL = ("{} is a", "{} was", "{} is known for", "{} is the", "{} has", "People say that {}")
"""Prompts about a subject, of which the unedited model makes statements."""

LENGTH = 16
"""Tokens of a statement."""


def subject_drift(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    edits: Iterable[Edit],
    *,
    batch_size: int = 8,
) -> dict[str, float]:
    """Measure how far the patches attached to a model move what it states of subjects.

    Call it inside ``with patch.applied(model):``.

    Args:
        model: A causal language model with its patches attached.
        tokenizer: Its tokenizer.
        edits: The edits; each one's subject is asked about.
        batch_size: Statements in one forward pass.

    Returns:
        The drift in nats a token by edit id, 0 or more; edits of a subject of which the unedited
        model states nothing are left out.

    Raises:
        InvalidInput: No edits, or two with the same id.
        UnsupportedModel: The model is an endpoint, which gives no probabilities of texts.
    """
    edits = check_edits(edits)
    prompts = [text.format(edit.subject) for edit in edits for text in GENERAL]
    with models.base(model):
        stated = models.generate(
            model, tokenizer, prompts, max_new_tokens=LENGTH, batch_size=8 * batch_size
        )
    found: dict[str, float] = {}
    for number, edit in enumerate(edits):
        part = slice(number * len(GENERAL), (number + 1) * len(GENERAL))
        pairs = [pair for pair in zip(prompts[part], stated[part], strict=True) if pair[1].strip()]
        if pairs:
            found[edit.id] = _divergence(model, tokenizer, pairs, batch_size)
    return found


def _divergence(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    pairs: list[tuple[str, str]],
    batch_size: int,
) -> float:
    """Compute the mean KL(before || after) over the tokens of statements after their prompts."""
    asked = tokenizer, *map(list, zip(*pairs, strict=True))
    with models.base(model):
        before = models.target_log_probs(model, *asked, batch_size=batch_size)
    after = models.target_log_probs(model, *asked, batch_size=batch_size)
    return statistics.fmean(
        value
        for old, new in zip(before, after, strict=True)  # (T, vocabulary) each
        for value in F.kl_div(new, old, log_target=True, reduction="none").sum(-1).tolist()
    )
