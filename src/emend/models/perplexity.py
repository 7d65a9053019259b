"""Perplexity: how well a model foretells running text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import nn

from emend.errors import InvalidInput, UnsupportedModel
from emend.models.endpoint import Endpoint
from emend.models.forward import longest_text
from emend.models.positions import pad_id, text_tokens
from emend.models.scoring import score_rows
from emend.models.start import ensure_start, front_ids

WINDOW = 512
"""Tokens that are read at once at most, so that memory stays small in models that read more."""


def perplexity(
    model: nn.Module, tokenizer: Any, texts: Sequence[str], *, batch_size: int = 8
) -> float:
    """The exponential of the mean negative log-probability per token.

    Texts longer than the model reads, or than `WINDOW` tokens, are cut into windows that do not
    overlap and begin with the model's start token; the first token of each window is given and
    not counted.

    Args:
        model: A causal language model; patches that act on its weights or states are heeded.
        tokenizer: Its tokenizer.
        texts: Running texts.
        batch_size: Windows in one forward pass.

    Returns:
        1 or more; infinity where it is too large for a float, NaN where the model gives NaN.

    Raises:
        InvalidInput: No text has two tokens.
        UnsupportedModel: The model is an endpoint, which gives no probabilities of texts.
    """
    if isinstance(model, Endpoint):
        raise UnsupportedModel(
            f"{model.name} gives no probabilities of given texts, expected a model with its "
            "weights here: leave the perplexity out"
        )
    ensure_start(model, tokenizer)
    size = min(longest_text(model) or WINDOW, WINDOW)
    front = front_ids(tokenizer)
    size = max(size - len(front), 1)
    ids = text_tokens(tokenizer, [text for text in texts if text.strip()])
    windows = [(*front, *row[at : at + size]) for row in ids for at in range(0, len(row), size)]
    windows = [window for window in windows if len(window) > 1]
    if not windows:
        raise InvalidInput("no text has two tokens, expected running text: give longer texts")
    scores = score_rows(model, windows, pad_id(tokenizer), batch_size=batch_size)
    mean = -sum(one.total for one in scores) / sum(len(one.log_probs) for one in scores)
    return math.exp(mean) if not mean > 700 else math.inf
