"""Log-probabilities of targets after prompts, and what comes next, in batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from emend.errors import InvalidInput
from emend.models._forward import batches, check_length, evaluating, head_at
from emend.models.attachments import prepare
from emend.models.placing import device_of
from emend.models.positions import join_targets, pad, pad_id, prompt_tokens


@dataclass(frozen=True)
class Score:
    """How a model takes one target after one prompt.

    Attributes:
        token_ids: the target's tokens.
        log_probs: natural log-probability of each, given the prompt and the tokens before it.
        greedy: the most probable token at each of these positions.
    """

    token_ids: list[int] = field(default_factory=list)
    log_probs: list[float] = field(default_factory=list)
    greedy: list[int] = field(default_factory=list)

    @property
    def total(self) -> float:
        """Log-probability of the whole target, in nats."""
        return sum(self.log_probs)

    @property
    def mean(self) -> float:
        """Log-probability per token, in nats."""
        return self.total / len(self.log_probs)

    @property
    def token_accuracy(self) -> float:
        """Share of the target's tokens that are the most probable ones, from 0 to 1."""
        pairs = zip(self.token_ids, self.greedy, strict=True)
        return sum(wanted == given for wanted, given in pairs) / len(self.token_ids)


def score(
    model: nn.Module,
    tokenizer: Any,
    prompts: Sequence[str],
    targets: Sequence[str],
    *,
    batch_size: int = 32,
) -> list[Score]:
    """Score each target after its prompt.

    Prompts pass through whatever is attached to the model first. The answer does not depend on
    the batch size, nor on the tokenizer's padding side or padding token. Pairs that are equal
    are run once.

    Args:
        model: a causal language model.
        tokenizer: its tokenizer.
        prompts: B texts.
        targets: B texts; see `positions.join_target` for the space between.
        batch_size: rows in one forward pass.

    Returns:
        B scores, in float32 whatever the model's dtype.

    Raises:
        InvalidInput: prompts and targets of different number, an empty prompt or target, or a
            text longer than the model reads.
    """
    pairs = join_targets(tokenizer, prepare(model, prompts), targets)
    keys = [(tuple(prompt), tuple(target)) for prompt, target in pairs]
    for prompt, target in keys:
        if not prompt:
            raise InvalidInput("the prompt is empty; give it some text")
        check_length(model, len(prompt) + len(target) - 1)
    unique = list(dict.fromkeys(keys))
    lengths = [len(prompt) + len(target) for prompt, target in unique]
    scores: dict[Any, Score] = {}
    with torch.no_grad(), evaluating(model):
        for rows in batches(lengths, batch_size):
            chunk = [unique[row] for row in rows]
            scores.update(zip(chunk, _score_batch(model, pad_id(tokenizer), chunk), strict=True))
    return [scores[key] for key in keys]


def likeliest(
    model: nn.Module, tokenizer: Any, prompts: Sequence[str], *, batch_size: int = 32
) -> list[tuple[int, float]]:
    """The most probable next token after each prompt, and its probability from 0 to 1.

    Prompts are taken as `score` takes them; equal ones are run once.
    """
    rows = [tuple(each) for each in prompt_tokens(tokenizer, prepare(model, prompts))]
    return likeliest_after(model, rows, pad_id(tokenizer), batch_size=batch_size)


def likeliest_after(
    model: nn.Module, rows: Sequence[tuple[int, ...]], padding: int, *, batch_size: int = 32
) -> list[tuple[int, float]]:
    """The same after each row of token ids; ``padding`` is any token that the model has."""
    for row in rows:
        check_length(model, len(row))
    unique = list(dict.fromkeys(rows))
    found: dict[tuple[int, ...], tuple[int, float]] = {}
    with torch.no_grad(), evaluating(model):
        for members in batches([len(row) for row in unique], batch_size):
            chunk = [unique[member] for member in members]
            ends = torch.tensor([len(row) - 1 for row in chunk])
            logits = _logits_at(model, padding, chunk, torch.arange(len(chunk)), ends)
            best = logits.float().softmax(-1).max(-1)
            pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
            found.update(zip(chunk, pairs, strict=True))
    return [found[row] for row in rows]


def _logits_at(
    model: Any, padding: int, texts: Sequence[Sequence[int]], rows: Tensor, columns: Tensor
) -> Tensor:
    """(N, vocabulary), the logits at some positions of a batch of texts."""
    # Padded on the right, every token stands where it stands alone: no position ids are needed.
    batch = pad(texts, padding).to(device_of(model.get_input_embeddings()))
    with head_at(model, rows, columns) as pick:
        return pick(
            model(
                input_ids=batch.input_ids, attention_mask=batch.attention_mask, use_cache=False
            ).logits
        )


def _score_batch(
    model: Any, padding: int, pairs: Sequence[tuple[tuple[int, ...], tuple[int, ...]]]
) -> list[Score]:
    texts = [[*prompt, *target[:-1]] for prompt, target in pairs]
    rows = [row for row, (_, target) in enumerate(pairs) for _ in target]
    columns = [len(prompt) - 1 + step for prompt, target in pairs for step in range(len(target))]
    logits = _logits_at(model, padding, texts, torch.tensor(rows), torch.tensor(columns))
    wanted = torch.tensor([token for _, target in pairs for token in target])
    log_probs, greedy = _read(logits, wanted.to(logits.device))  # (N,), (N,)
    result: list[Score] = []
    start = 0
    for _, target in pairs:
        end = start + len(target)
        result.append(Score(list(target), log_probs[start:end], greedy[start:end]))
        start = end
    return result


def _read(logits: Tensor, wanted: Tensor) -> tuple[list[float], list[int]]:
    """(N, vocabulary), (N,) -> log-probabilities of the wanted tokens, most probable tokens."""
    logits = logits.float()
    chosen = logits.gather(-1, wanted[:, None])[:, 0]
    return (chosen - logits.logsumexp(-1)).tolist(), logits.argmax(-1).tolist()
