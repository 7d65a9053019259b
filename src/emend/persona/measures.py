"""Measures of an edited personality, as functions of log-probabilities and judgements.

Mao et al. 2024, "Editing Personality for Large Language Models", arXiv 2310.02168; ES and DD are
those of Mitchell et al. 2022, arXiv 2206.06520 (ConvSent).

    ES    sigmoid(a - b) min(1, exp(a - a0))     a, b: mean token log-probability after the edit of
                                                 answers of the trait, of answers of other traits;
                                                 a0: a before the edit
    DD    mean KL(before || after)               on answers about other topics, by token, in nats
    TPEI  CE_before - CE_after                   cross-entropy of the judge for the trait
    PAE   s_after - s_before                     rating from 1 to 5 by a language model

Two faults of the published code are corrected: it shares one mask of answer tokens among all rows
of a batch, and it reads the log-probability of each token from the logits one position too late.
Here each answer has its own tokens, and each token is scored by the logits of the position before
it (`emend.models.score`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean

import torch
from torch import Tensor

from emend.models import Score

FLOOR = 1e-6
"""Least probability of the judge in a cross-entropy: one sure mistake must not decide a mean."""

DULL = 350.0
"""n-gram entropy, in bits x 100, below which an answer counts as repetitive (published: 3.5)."""


def mean_log_prob(scores: Sequence[Score]) -> float:
    """Return the mean over answers of each one's mean token log-probability, in nats."""
    return fmean(one.mean for one in scores)


def editing_success(same: float, rival: float, same_before: float) -> float:
    """Compute ES, from 0 to 1.

    Args:
        same: Mean token log-probability of the trait's answers after the edit (a).
        rival: That of the other traits' answers after the edit (b).
        same_before: That of the trait's answers before the edit (a0).
    """
    preferred = 1 / (1 + math.exp(min(rival - same, 700.0)))
    return preferred * min(1.0, math.exp(min(same - same_before, 0.0)))


def drawdown(before: Sequence[Tensor], after: Sequence[Tensor]) -> float:
    """Compute DD: the mean over answers of the mean KL(before || after) of their tokens, in nats.

    Args:
        before: Of each answer, (tokens, vocabulary) log-probabilities of the unedited model.
        after: The same of the edited model.
    """
    each = [
        float((old.exp() * (old - new)).sum(-1).mean())
        for old, new in zip(before, after, strict=True)
    ]
    return fmean(each)


def accuracy(probabilities: Tensor, label: int) -> float:
    """Return the share of texts, from (N, labels) probabilities, that get a label.

    A row of zeros is an answer that could not be judged, and gets none.
    """
    chosen = (probabilities.argmax(-1) == label) & (probabilities[:, label] > 0)
    return float(chosen.double().mean())


def cross_entropy(probabilities: Tensor, label: int) -> float:
    """Return the mean of -log p(label) over (N, labels) probabilities, in nats."""
    return float(-torch.log(probabilities[:, label].double().clamp(min=FLOOR)).mean())
