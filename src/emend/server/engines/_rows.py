"""What the worker is given: texts to write, and texts to score, each with who waits for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from emend.models.forward import evaluating, head_at
from emend.models.mixture import Runner
from emend.models.placing import device_of
from emend.models.positions import pad
from emend.models.writing import PromptBatch, settled, text_after
from emend.server.engines._prompts import Prompt
from emend.server.engines._sampling import Sampling, TokenScore, scores_of
from emend.server.engines._texts import Text

BEFORE = 4
"""Tokens of the prompt that new ones are decoded behind."""


class Row(Text):
    """A text that is written, a token at every step.

    Args:
        model: The model that writes it.
        prompt: What it follows.
        limit: The largest number of new tokens.
        sampling: How they are chosen.
        stops: Strings that end the text.
        most: How many of the most probable tokens are kept with each; None keeps no scores.
        tell: Called in the worker's thread after each new token, and where it fails.
    """

    def __init__(
        self,
        model: nn.Module,
        prompt: Prompt,
        limit: int,
        sampling: Sampling,
        stops: tuple[str, ...],
        most: int | None,
        tell: Callable[[], None],
    ) -> None:
        super().__init__(prompt, tell)
        self.model, self.limit = model, limit
        self.sampling, self.stops, self.most = sampling, stops, most
        self._tokens: list[int] = []

    def add(self, logits: Tensor, tokenizer: Any, ends: set[int]) -> int:
        """Add the token that follows logits (vocabulary,); return it."""
        token = self.sampling.choose(logits.float())
        if self.most is not None:
            self.scores += scores_of(logits[None], [token], self.most)
        self._tokens.append(token)
        self.new_tokens += 1
        is_end = token in ends
        new = self._tokens[:-1] if is_end else self._tokens
        whole = text_after(tokenizer, self.prompt[-BEFORE:], new)
        whole = whole.lstrip(" ") if self.after_space else whole
        cuts = [cut for stop in self.stops if (cut := whole.find(stop)) >= 0]
        if is_end or cuts:
            # The text first: whoever sees that it has ended reads the whole of it.
            self.text = whole[: min(cuts)] if cuts else whole
            self.finish = "stop"
        elif self.new_tokens >= self.limit:
            self.text = whole
            self.finish = "length"
        else:
            self.text = settled(whole, self.stops)
        self.tell()
        return token


class Writing:
    """Rows of one model that are written together."""

    def __init__(self, rows: Sequence[Row], tokenizer: Any, ends: set[int]) -> None:
        self.rows, self.tokenizer, self.ends = list(rows), tokenizer, ends
        self._batch = PromptBatch(Runner(rows[0].model), [row.prompt for row in rows])
        self._next = self._batch.begin()

    @property
    def is_open(self) -> bool:
        """Whether some row goes on."""
        return any(row.is_open for row in self.rows)

    def step(self) -> None:
        """Add a token to each row whose prompt was read to its end."""
        with torch.no_grad(), evaluating(self.rows[0].model):
            logits = self._batch.step(self._next)  # (B, vocabulary)
        chosen = [0] * len(self.rows)
        for number, row in enumerate(self.rows):
            if self._batch.read >= len(row.prompt) and row.is_open:
                chosen[number] = row.add(logits[number], self.tokenizer, self.ends)
        self._next = self._batch.next_tokens(chosen)


class Scored:
    """A text whose tokens are scored.

    Args:
        model: The model that scores it.
        tokens: Token ids, at least one.
        most: How many of the most probable tokens are kept with each.
        tell: Called in the worker's thread once it is done.

    Attributes:
        scores: Of each token; the first has no probability.
        next: Logits (vocabulary,) after the last token.
        error: What it failed on.
    """

    def __init__(
        self, model: nn.Module, tokens: Sequence[int], most: int, tell: Callable[[], None]
    ) -> None:
        self.model, self.tokens, self.most, self.tell = model, tuple(tokens), most, tell
        self.scores: list[TokenScore] | None = None
        self.next: Tensor | None = None
        self.error: BaseException | None = None
        self.cancelled = False

    @property
    def is_open(self) -> bool:
        """Whether somebody waits for it still."""
        return self.scores is None and self.error is None and not self.cancelled

    def fail(self, error: BaseException) -> None:
        """End it by an error."""
        self.error = error
        self.tell()


def score_texts(texts: Sequence[Scored], padding: int) -> None:
    """Score texts of one model in one pass, padded on the right."""
    network: Any = texts[0].model
    batch = pad([one.tokens for one in texts], padding)
    ids = batch.input_ids.to(device_of(network.get_input_embeddings()))
    rows = [number for number, one in enumerate(texts) for _ in one.tokens]
    columns = [column for one in texts for column in range(len(one.tokens))]
    # No token sees the padding on its right.
    options: dict[str, Any] = {"attention_mask": torch.ones_like(ids), "use_cache": False}
    at = torch.tensor(rows), torch.tensor(columns)
    with torch.no_grad(), evaluating(network), head_at(network, *at) as pick:
        logits = pick(network(input_ids=ids, **options).logits)  # (tokens of all, vocabulary)
    begin = 0
    for one in texts:
        own = logits[begin : begin + len(one.tokens)]
        begin += len(one.tokens)
        rest = scores_of(own[:-1], list(one.tokens[1:]), one.most) if len(own) > 1 else []
        one.scores, one.next = [TokenScore(one.tokens[0], None), *rest], own[-1].float()
        one.tell()
