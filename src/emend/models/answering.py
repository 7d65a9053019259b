"""What a model says to prompts, and how it takes given answers, with each prompt read once.

`score` reads a prompt once for each answer, and `generate` once more. Here prompts of one length
are read together and kept as a cache: the logits after them give the first token of the greedy
text and of every answer, the rest of the answers is read from copies of the cache, and the text
goes on from the cache itself. As in `generate` no row has padding before its tokens, so that no
masks and position ids are needed. Prompts that this is of no use for are asked by those two.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from transformers.cache_utils import DynamicLayer

from emend.models.attachments import attachments
from emend.models.forward import evaluating, head_at, longest_text
from emend.models.generation import generate, placed
from emend.models.mixture import Runner, grouped, mixture_pairs, mixture_prompts
from emend.models.passes import Batch, HookAttachment, reading
from emend.models.positions import pad, pad_id
from emend.models.scoring import Score, score
from emend.models.writing import PromptBatch, Writer

TOGETHER = 4
"""Prompts of one length that are worth a batch of their own."""


@dataclass(frozen=True)
class Inquiry:
    """What is asked after one prompt.

    Attributes:
        prompt: The text.
        targets: Answers to score after it, each once.
        lengths: Numbers of new tokens of the greedy texts that are wanted, each once.
    """

    prompt: str
    targets: tuple[str, ...] = ()
    lengths: tuple[int, ...] = ()


@dataclass(frozen=True)
class Reply:
    """What a model says to an inquiry.

    Attributes:
        scores: The score of each target.
        texts: The greedy text of each length.
    """

    scores: dict[str, Score] = field(default_factory=dict[str, Score])
    texts: dict[int, str] = field(default_factory=dict[int, str])


def inquire(
    model: nn.Module, tokenizer: Any, inquiries: Sequence[Inquiry], *, batch_size: int = 32
) -> list[Reply]:
    """Score answers after prompts and continue the prompts greedily.

    Scores and texts are those of `score` and `generate`, up to rounding; they do not depend on
    the batch size.

    Args:
        model: A causal language model; prompts pass through whatever is attached to it.
        tokenizer: Its tokenizer.
        inquiries: What is asked; each prompt once.
        batch_size: Rows in one forward pass.

    Returns:
        A reply to each.

    Raises:
        InvalidInput: See `score` and `generate`.
    """
    replies = [Reply() for _ in inquiries]
    apart = set(range(len(inquiries)))
    with torch.no_grad(), evaluating(model):
        for rows in _groups(model, tokenizer, inquiries, batch_size):
            shared = _Shared(model, tokenizer, rows)
            if not shared.can_go_on:
                break
            for row, reply in zip(rows, shared.replies(batch_size), strict=True):
                replies[row.number] = reply
                apart.discard(row.number)
    for number, reply in _apart(model, tokenizer, inquiries, sorted(apart), batch_size):
        replies[number] = reply
    return replies


@dataclass(frozen=True)
class _Row:
    """One inquiry, tokenised: its number, prompt, targets by their text, and lengths."""

    number: int
    text: str
    prompt: tuple[int, ...]
    targets: Mapping[str, tuple[int, ...]]
    lengths: tuple[int, ...]


def _groups(
    model: nn.Module, tokenizer: Any, inquiries: Sequence[Inquiry], batch_size: int
) -> Iterator[list[_Row]]:
    """Give the inquiries that are read together: enough of one length, and the model alone."""
    # What acts where a prompt ends keeps things of each row, which a copied cache has not.
    if any(isinstance(one, HookAttachment) for one in attachments(model)):
        return
    rows = [row for row in _rows(model, tokenizer, inquiries) if row is not None]
    for group in grouped(rows, lambda row: len(row.prompt)):
        if len(group) >= TOGETHER:
            for at in range(0, len(group), batch_size):
                yield group[at : at + batch_size]


def _rows(model: nn.Module, tokenizer: Any, inquiries: Sequence[Inquiry]) -> Iterator[_Row | None]:
    """Tokenise inquiries; None where others than the model answer, or texts are too long."""
    prompts = [one.prompt for one in inquiries]
    if not all(map(str.strip, prompts)):  # `generate` refuses them
        return
    asked = mixture_prompts(model, tokenizer, prompts)
    flat = [(number, target) for number, one in enumerate(inquiries) for target in one.targets]
    pairs = mixture_pairs(
        model, tokenizer, [prompts[number] for number, _ in flat], [target for _, target in flat]
    )
    targets: list[dict[str, tuple[int, ...]]] = [{} for _ in inquiries]
    for (number, target), (read, ids) in zip(flat, pairs, strict=True):
        if read == asked[number]:
            targets[number][target] = ids
    limit = longest_text(model)
    for number, one in enumerate(inquiries):
        whole = asked[number].length + max(map(len, targets[number].values()), default=1) - 1
        alone = asked[number].runners == (Runner(model),) and len(targets[number]) == len(
            one.targets
        )
        if alone and (limit is None or whole <= limit):
            yield _Row(number, one.prompt, asked[number].prompts[0], targets[number], one.lengths)


class _Shared:
    """Prompts of one length that a model reads once."""

    def __init__(self, model: nn.Module, tokenizer: Any, rows: Sequence[_Row]) -> None:
        self._model, self._tokenizer, self._rows = model, tokenizer, rows
        self._batch = PromptBatch(Runner(model), [row.prompt for row in rows])
        logits = self._batch.step(self._batch.begin()).float()  # (B, vocabulary)
        self._first = logits.argmax(-1).tolist()
        self._scores: list[dict[str, Score]] = []
        for row, likely in zip(rows, logits.log_softmax(-1), strict=True):
            self._scores.append(
                {
                    text: Score([*ids], [likely[ids[0]].item()], [self._first[len(self._scores)]])
                    for text, ids in row.targets.items()
                }
            )

    @property
    def can_go_on(self) -> bool:
        """Whether rows of the cache can be copied: states of other kinds than keys may not be."""
        layers = getattr(self._batch.cache, "layers", None) or (None,)
        return all(isinstance(layer, DynamicLayer) for layer in layers)

    def replies(self, batch_size: int) -> list[Reply]:
        """Score the rest of the targets, write the texts, and give both."""
        longer = [
            (number, text, ids)
            for number, row in enumerate(self._rows)
            for text, ids in row.targets.items()
            if len(ids) > 1
        ]
        longer.sort(key=lambda one: len(one[2]))
        for at in range(0, len(longer), batch_size):
            self._read_on(longer[at : at + batch_size])
        pairs = zip(self._scores, self._texts(), strict=True)
        return [Reply(scores, texts) for scores, texts in pairs]

    def _read_on(self, targets: Sequence[tuple[int, str, tuple[int, ...]]]) -> None:
        """Read targets of several tokens after copies of the cache."""
        chosen = torch.tensor([number for number, _, _ in targets])
        cache = copy.deepcopy(self._batch.cache)
        cache.batch_select_indices(chosen)
        ids = pad([ids[:-1] for _, _, ids in targets], pad_id(self._tokenizer)).input_ids
        rows = torch.tensor([at for at, one in enumerate(targets) for _ in one[2][1:]])
        columns = torch.tensor([step for one in targets for step in range(len(one[2]) - 1)])
        wanted = torch.tensor([token for one in targets for token in one[2][1:]])
        model: Any = self._model
        read = Batch(self._batch.batch.ends[chosen])
        with reading(model, read), head_at(model, rows, columns) as pick:
            device = self._batch.device
            output = model(input_ids=ids.to(device), past_key_values=cache, use_cache=True)
            logits = pick(output.logits).float()  # (N, vocabulary)
        likely = logits.gather(-1, wanted.to(logits.device)[:, None])[:, 0] - logits.logsumexp(-1)
        found = iter(zip(likely.tolist(), logits.argmax(-1).tolist(), strict=True))
        for number, text, ids in targets:
            for log_prob, token in [next(found) for _ in ids[1:]]:
                self._scores[number][text].log_probs.append(log_prob)
                self._scores[number][text].greedy.append(token)

    def _texts(self) -> list[dict[int, str]]:
        """Write each prompt's longest text; the shorter ones are its beginnings."""
        limits = [max(row.lengths, default=0) for row in self._rows]
        writer = Writer((Runner(self._model),), self._tokenizer, max(*limits, 1), ())
        written: list[list[int]] = [[token] for token in self._first]
        at = list(range(len(self._rows)))
        while at:
            kept = [
                place
                for place, number in enumerate(at)
                if len(written[number]) < limits[number]
                and not writer.is_done(self._rows[number].prompt, written[number])
            ]
            if not kept:
                break
            if len(kept) < len(at):
                at = [at[place] for place in kept]
                self._batch.keep(kept)
            logits = self._batch.step([written[number][-1:] for number in at])
            for number, token in zip(at, logits.argmax(-1).tolist(), strict=True):
                written[number].append(token)
        return [
            {
                length: placed(row.text, writer.text(row.prompt, new[:length]))
                for length in row.lengths
            }
            for row, new in zip(self._rows, written, strict=True)
        ]


def _apart(
    model: nn.Module,
    tokenizer: Any,
    inquiries: Sequence[Inquiry],
    numbers: Sequence[int],
    batch_size: int,
) -> Iterator[tuple[int, Reply]]:
    """Answer inquiries by `score` and `generate`."""
    replies = {number: Reply() for number in numbers}
    asked = [(number, target) for number in numbers for target in inquiries[number].targets]
    found = score(
        model,
        tokenizer,
        [inquiries[number].prompt for number, _ in asked],
        [target for _, target in asked],
        batch_size=batch_size,
    )
    for (number, target), one in zip(asked, found, strict=True):
        replies[number].scores[target] = one
    lengths = sorted({length for number in numbers for length in inquiries[number].lengths})
    for length in lengths:
        some = [number for number in numbers if length in inquiries[number].lengths]
        texts = generate(
            model,
            tokenizer,
            [inquiries[number].prompt for number in some],
            max_new_tokens=length,
            batch_size=batch_size,
        )
        for number, text in zip(some, texts, strict=True):
            replies[number].texts[length] = text
    yield from replies.items()
