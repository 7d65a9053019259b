"""Log-probabilities of targets after prompts, top-1 next tokens, and perplexity, in batches."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeVar

import torch
from torch import Tensor, nn

from emend.errors import InvalidInput, UnsupportedModel
from emend.models.endpoint import Endpoint
from emend.models.forward import batches, check_length, evaluating, head_at, longest_text
from emend.models.mixture import (
    MixturePrompt,
    Runner,
    grouped,
    mixed,
    mixture_pairs,
    mixture_prompts,
)
from emend.models.passes import Batch, reading
from emend.models.placing import device_of
from emend.models.positions import pad, pad_id, text_tokens
from emend.models.start import ensure_start, front_ids

T = TypeVar("T", bound=Hashable)
R = TypeVar("R")

Pair: TypeAlias = tuple[MixturePrompt, tuple[int, ...]]
"""A prompt and the token ids of the target after it."""


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
    if len(prompts) != len(targets):
        raise InvalidInput(f"{len(prompts)} prompts for {len(targets)} targets; give one each")
    _refuse_endpoint(model, "what it generates can be judged by exact match")
    pairs = mixture_pairs(model, tokenizer, prompts, targets)
    for asked, target in pairs:
        if not all(asked.prompts):
            raise InvalidInput("the prompt is empty; give it some text")
        _check_lengths(asked, len(target) - 1)
    return _score_pairs(model, pairs, pad_id(tokenizer), batch_size)


def target_log_probs(
    model: nn.Module,
    tokenizer: Any,
    prompts: Sequence[str],
    targets: Sequence[str],
    *,
    batch_size: int = 8,
) -> list[Tensor]:
    """Return log-probabilities of the whole vocabulary where each target's tokens are predicted.

    Args:
        model: A causal language model; prompts pass through whatever is attached to it.
        tokenizer: Its tokenizer.
        prompts: B texts.
        targets: B texts.
        batch_size: Rows in one forward pass.

    Returns:
        B tensors (tokens of the target, vocabulary), float32, in nats.

    Raises:
        InvalidInput: A text is longer than the model reads.
        UnsupportedModel: The model is an endpoint.
    """
    _refuse_endpoint(model, "leave out what compares probabilities")
    pairs = mixture_pairs(model, tokenizer, prompts, targets)
    for asked, target in pairs:
        _check_lengths(asked, len(target) - 1)

    def run(chunk: list[Pair]) -> list[Tensor]:
        ends = [end for _, end in chunk]
        logits = _mixed_logits(pad_id(tokenizer), [asked for asked, _ in chunk], ends)
        return list(logits.float().log_softmax(-1).split([len(end) for end in ends]))

    with torch.no_grad(), evaluating(model):
        return _in_batches(
            pairs,
            lambda pair: pair[0].runners,
            lambda pair: pair[0].length + len(pair[1]),
            batch_size,
            run,
        )


def top1(
    model: nn.Module, tokenizer: Any, prompts: Sequence[str], *, batch_size: int = 32
) -> list[tuple[int, float]]:
    """Find the most probable next token after each prompt, and its probability from 0 to 1.

    Prompts are taken as `score` takes them; equal ones are run once.
    """
    asked = mixture_prompts(model, tokenizer, prompts)
    return _top1(model, asked, pad_id(tokenizer), batch_size)


def next_log_probs(
    model: nn.Module,
    tokenizer: Any,
    prompts: Sequence[str],
    tokens: Sequence[int],
    *,
    batch_size: int = 32,
) -> list[list[float]]:
    """Find the log-probabilities of some next tokens after each prompt, in nats.

    Args:
        model: a causal language model.
        tokenizer: its tokenizer.
        prompts: B texts, taken as `score` takes them; equal ones are run once.
        tokens: K token ids.
        batch_size: prompts in one forward pass.

    Returns:
        B lists of K numbers.
    """
    _refuse_endpoint(model, "load its weights to read the probabilities of tokens")
    asked = mixture_prompts(model, tokenizer, prompts)

    def read(logits: Tensor) -> list[list[float]]:
        return logits.log_softmax(-1)[:, list(tokens)].tolist()

    return _after_prompts(model, asked, pad_id(tokenizer), batch_size, read)


def top1_of_rows(
    model: nn.Module, rows: Sequence[tuple[int, ...]], padding: int, *, batch_size: int = 32
) -> list[tuple[int, float]]:
    """Find the same after each row of token ids; ``padding`` is any token that the model has."""
    asked = [MixturePrompt.of(model, row) for row in rows]
    return _top1(model, asked, padding, batch_size)


def score_rows(
    model: nn.Module, rows: Sequence[tuple[int, ...]], padding: int, *, batch_size: int = 32
) -> list[Score]:
    """Score rows of token ids, each token given those before it; the first is only given.

    Args:
        model: a causal language model.
        rows: B rows of two tokens or more, none longer than the model reads.
        padding: any token that the model has.
        batch_size: rows in one forward pass.
    """
    pairs = [(MixturePrompt.of(model, row[:1]), row[1:]) for row in rows]
    return _score_pairs(model, pairs, padding, batch_size)


def _top1(
    model: nn.Module, prompts: Sequence[MixturePrompt], padding: int, batch_size: int
) -> list[tuple[int, float]]:
    def read(logits: Tensor) -> list[tuple[int, float]]:
        best = logits.softmax(-1).max(-1)
        return list(zip(best.indices.tolist(), best.values.tolist(), strict=True))

    return _after_prompts(model, prompts, padding, batch_size, read)


def _after_prompts(
    model: nn.Module,
    prompts: Sequence[MixturePrompt],
    padding: int,
    batch_size: int,
    read: Callable[[Tensor], list[R]],
) -> list[R]:
    """Read something of the next-token logits (B, vocabulary), in float32, after each prompt."""
    for asked in prompts:
        _check_lengths(asked, 0)

    def run(chunk: list[MixturePrompt]) -> list[R]:
        return read(_mixed_logits(padding, chunk, [(0,)] * len(chunk)).float())

    with torch.no_grad(), evaluating(model):
        return _in_batches(
            prompts, lambda asked: asked.runners, lambda asked: asked.length, batch_size, run
        )


def _score_pairs(
    model: nn.Module, pairs: Sequence[Pair], padding: int, batch_size: int
) -> list[Score]:
    with torch.no_grad(), evaluating(model):
        return _in_batches(
            pairs,
            lambda pair: pair[0].runners,
            lambda pair: pair[0].length + len(pair[1]),
            batch_size,
            lambda chunk: _score_batch(padding, chunk),
        )


def _in_batches(
    items: Sequence[T],
    key: Callable[[T], Hashable],
    length: Callable[[T], int],
    batch_size: int,
    run: Callable[[list[T]], Sequence[R]],
) -> list[R]:
    """Run different items in batches of one key and similar length; return each one's result."""
    found: dict[T, R] = {}
    for group in grouped(dict.fromkeys(items), key):
        for rows in batches([length(item) for item in group], batch_size):
            chunk = [group[row] for row in rows]
            found.update(zip(chunk, run(chunk), strict=True))
    return [found[item] for item in items]


def _refuse_endpoint(model: nn.Module, remedy: str) -> None:
    if isinstance(model, Endpoint):
        raise UnsupportedModel(
            f"{model.name} gives no probabilities of given texts, expected a model with its "
            f"weights here: {remedy}"
        )


def _check_lengths(asked: MixturePrompt, more: int) -> None:
    for runner, prompt in zip(asked.runners, asked.prompts, strict=True):
        check_length(runner.model, len(prompt) + more)


def _mixed_logits(
    padding: int, chunk: Sequence[MixturePrompt], targets: Sequence[tuple[int, ...]]
) -> Tensor:
    """Return the logits that predict the targets' tokens, row by row, (N, vocabulary)."""
    rows = torch.tensor([row for row, target in enumerate(targets) for _ in target])
    found: list[Tensor] = []
    for number, runner in enumerate(chunk[0].runners):
        prompts = [asked.prompts[number] for asked in chunk]
        texts = [[*p, *target[:-1]] for p, target in zip(prompts, targets, strict=True)]
        columns = [
            len(prompt) - 1 + step
            for prompt, target in zip(prompts, targets, strict=True)
            for step in range(len(target))
        ]
        ends = [len(prompt) - 1 for prompt in prompts]
        found.append(_logits_at(runner, padding, texts, ends, rows, torch.tensor(columns)))
    weights = torch.tensor([asked.weights for asked in chunk])
    return mixed(found, weights[rows])


def _logits_at(
    runner: Runner,
    padding: int,
    texts: Sequence[Sequence[int]],
    ends: Sequence[int],
    rows: Tensor,
    columns: Tensor,
) -> Tensor:
    """Return the logits at some positions of a batch of texts, (N, vocabulary)."""
    model: Any = runner.model
    # Padded on the right, every token has the position that it has alone: no ids are needed.
    batch = pad(texts, padding).to(device_of(model.get_input_embeddings()))
    # No token sees the padding on its right. Masked, it would see nothing where attention slides,
    # which is NaN in some models (Gemma 2 in float64), and 0 * NaN spreads.
    seen = torch.ones_like(batch.input_ids)
    read = Batch(torch.tensor(ends))
    with runner.acting(), reading(model, read), head_at(model, rows, columns) as pick:
        return pick(model(input_ids=batch.input_ids, attention_mask=seen, use_cache=False).logits)


def _score_batch(padding: int, pairs: Sequence[Pair]) -> list[Score]:
    logits = _mixed_logits(padding, [asked for asked, _ in pairs], [end for _, end in pairs])
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
    """Return the log-probabilities of (N,) wanted tokens, and the top-1 tokens."""
    logits = logits.float()
    chosen = logits.gather(-1, wanted[:, None])[:, 0]
    return (chosen - logits.logsumexp(-1)).tolist(), logits.argmax(-1).tolist()


WINDOW = 512
"""Tokens that are read at once at most, so that memory stays small in models that read more."""


def perplexity(
    model: nn.Module,
    tokenizer: Any,
    texts: Sequence[str],
    *,
    batch_size: int = 8,
    tokens: int | None = None,
) -> float:
    """Return the exponential of the mean negative log-probability per token.

    Texts longer than the model reads, or than `WINDOW` tokens, are cut into windows that do not
    overlap and begin with the model's start token; the first token of each window is given and
    not counted.

    Args:
        model: A causal language model; patches that act on its weights or states are heeded.
        tokenizer: Its tokenizer.
        texts: Running texts.
        batch_size: Windows in one forward pass.
        tokens: How many tokens of each text, from the first, are read; None for all.

    Returns:
        1 or more; infinity where it is too large for a float, NaN where the model gives NaN.

    Raises:
        InvalidInput: No text has two tokens.
        UnsupportedModel: The model is an endpoint, which gives no probabilities of texts.
    """
    _refuse_endpoint(model, "leave the perplexity out")
    ensure_start(model, tokenizer)
    size = min(longest_text(model) or WINDOW, WINDOW)
    front = front_ids(tokenizer)
    size = max(size - len(front), 1)
    ids = text_tokens(tokenizer, [text for text in texts if text.strip()])
    ids = [row[:tokens] for row in ids]
    windows = [(*front, *row[at : at + size]) for row in ids for at in range(0, len(row), size)]
    windows = [window for window in windows if len(window) > 1]
    if not windows:
        raise InvalidInput("no text has two tokens, expected running text: give longer texts")
    scores = score_rows(model, windows, pad_id(tokenizer), batch_size=batch_size)
    mean = -sum(one.total for one in scores) / sum(len(one.log_probs) for one in scores)
    return math.exp(mean) if not mean > 700 else math.inf
