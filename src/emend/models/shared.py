"""Prompts of one length that a model reads once, for their texts and all answers after them.

The prompts are kept as a cache: the logits after them give the first token of the greedy text and
of every answer, the rest of the answers is read from copies of the cache, and the text goes on from
the cache itself. As in `generation` no row has padding before its tokens, so that no masks and
position ids are needed.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers.cache_utils import DynamicLayer

from emend.models.forward import head_at
from emend.models.mixture import Runner
from emend.models.passes import Batch, reading
from emend.models.positions import pad, pad_id
from emend.models.scoring import Score
from emend.models.writing import PromptBatch, Writer


@dataclass(frozen=True)
class PromptRow:
    """One inquiry, tokenised: its number, prompt, targets by their text, and lengths."""

    number: int
    prompt: tuple[int, ...]
    targets: Mapping[str, tuple[int, ...]]
    lengths: tuple[int, ...]


@dataclass(frozen=True)
class _Tail:
    """Tokens read after a prompt's first new one.

    Attributes:
        number: The prompt's place in its batch.
        tokens: All but the last are read, all but the first are predicted.
        target: The target that they are; None where the greedy text's first token is read, for
            the one after it.
    """

    number: int
    tokens: tuple[int, ...]
    target: str | None


class SharedPrompts:
    """Prompts of one length that a model reads once."""

    def __init__(self, model: nn.Module, tokenizer: Any, rows: Sequence[PromptRow]) -> None:
        self._model, self._tokenizer, self._rows = model, tokenizer, rows
        self._batch = PromptBatch(Runner(model), [row.prompt for row in rows])
        logits = self._batch.step(self._batch.begin()).float()  # (B, vocabulary)
        self._limits = [max(row.lengths, default=0) for row in rows]
        self._written: list[list[int]] = [[token] for token in logits.argmax(-1).tolist()]
        norms = logits.logsumexp(-1).tolist()
        self._scores = [
            {
                text: Score([*ids], [logits[at, ids[0]].item() - norms[at]], [*self._written[at]])
                for text, ids in row.targets.items()
            }
            for at, row in enumerate(rows)
        ]

    @property
    def can_go_on(self) -> bool:
        """Whether rows of the cache can be copied: states of other kinds than keys may not be."""
        layers = getattr(self._batch.cache, "layers", None) or (None,)
        return all(isinstance(layer, DynamicLayer) for layer in layers)

    def answers(self, batch_size: int) -> list[tuple[dict[str, Score], dict[int, str]]]:
        """Score the rest of the targets, write the texts, and give both for each prompt."""
        tails = sorted(self._tails(), key=lambda tail: len(tail.tokens))
        for at in range(0, len(tails), batch_size):
            self._read_on(tails[at : at + batch_size])
        return list(zip(self._scores, self._texts(), strict=True))

    def _tails(self) -> list[_Tail]:
        """Find what is read after the first token: rest of targets, and of the texts' beginning."""
        found: list[_Tail] = []
        for number, row in enumerate(self._rows):
            longer = [(text, ids) for text, ids in row.targets.items() if len(ids) > 1]
            found += [_Tail(number, ids, text) for text, ids in longer]
            first = self._written[number][0]
            if self._limits[number] > 1 and first not in {ids[0] for _, ids in longer}:
                found.append(_Tail(number, (first, first), None))
        return found

    def _read_on(self, tails: Sequence[_Tail]) -> None:
        """Read tails after copies of the cache: scores of targets, and the texts' second tokens."""
        chosen = torch.tensor([tail.number for tail in tails])
        cache = copy.deepcopy(self._batch.cache)
        cache.batch_select_indices(chosen)
        ids = pad([tail.tokens[:-1] for tail in tails], pad_id(self._tokenizer)).input_ids
        rows = torch.tensor([at for at, tail in enumerate(tails) for _ in tail.tokens[1:]])
        columns = torch.tensor([step for t in tails for step in range(len(t.tokens) - 1)])
        wanted = torch.tensor([token for tail in tails for token in tail.tokens[1:]])
        model: Any = self._model
        read = Batch(self._batch.batch.ends[chosen])
        with reading(model, read), head_at(model, rows, columns) as pick:
            device = self._batch.device
            output = model(input_ids=ids.to(device), past_key_values=cache, use_cache=True)
            logits = pick(output.logits).float()  # (N, vocabulary)
        likely = logits.gather(-1, wanted.to(logits.device)[:, None])[:, 0] - logits.logsumexp(-1)
        found = iter(zip(likely.tolist(), logits.argmax(-1).tolist(), strict=True))
        for tail in tails:
            heard = [next(found) for _ in tail.tokens[1:]]
            written = self._written[tail.number]
            if len(written) == 1 and tail.tokens[0] == written[0]:
                written.append(heard[0][1])
            if tail.target is not None:
                score = self._scores[tail.number][tail.target]
                score.log_probs.extend(log_prob for log_prob, _ in heard)
                score.greedy.extend(token for _, token in heard)

    def _texts(self) -> list[dict[int, str]]:
        """Write each prompt's longest text; the shorter ones are its beginnings."""
        writer = Writer((Runner(self._model),), self._tokenizer, max(*self._limits, 1), ())
        at, unread = list(range(len(self._rows))), 2
        while at:
            kept = [place for place, number in enumerate(at) if self._goes_on(writer, number)]
            if not kept:
                break
            if len(kept) < len(at):
                at = [at[place] for place in kept]
                self._batch.keep(kept)
            logits = self._batch.step([self._written[number][-unread:] for number in at])
            unread = 1
            for number, token in zip(at, logits.argmax(-1).tolist(), strict=True):
                self._written[number].append(token)
        return [
            {
                length: writer.text(row.prompt, self._text(writer, new, length))
                for length in row.lengths
            }
            for row, new in zip(self._rows, self._written, strict=True)
        ]

    def _goes_on(self, writer: Writer, number: int) -> bool:
        new = self._written[number]
        ended = any(token in writer.ends for token in new)
        whole = len(self._rows[number].prompt) + len(new)
        readable = writer.limit is None or whole <= writer.limit
        return len(new) < self._limits[number] and not ended and readable

    def _text(self, writer: Writer, new: list[int], length: int) -> list[int]:
        """Return the tokens of a text of some length, up to one that ends it."""
        ends = [place for place, token in enumerate(new) if token in writer.ends]
        return new[: min(length, *(place + 1 for place in ends[:1]))] if ends else new[:length]
