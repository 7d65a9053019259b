"""Greedy continuations of prompts, in batches that hold no padding at all.

Rows of unequal length run together by reading the longer prompts' last tokens one at a time,
where the shorter ones already write. Every row then sees exactly what it sees alone, in every
architecture: no padding, no position ids, no masks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from emend.errors import InvalidInput
from emend.models._forward import batches, check_length, evaluating, head_at, longest_text
from emend.models.attachments import prepare
from emend.models.placing import device_of
from emend.models.positions import prompt_tokens

SPREAD = 8
"""Prompts in one batch differ by at most this many tokens: each costs one short step."""


def generate(
    model: nn.Module,
    tokenizer: Any,
    prompts: Sequence[str],
    *,
    max_new_tokens: int = 16,
    batch_size: int = 32,
    stop: str | Sequence[str] | None = None,
) -> list[str]:
    """Continue each prompt greedily.

    Prompts pass through whatever is attached to the model first. The answer does not depend on
    the batch size, nor on the tokenizer's padding side or padding token. Prompts that are equal
    are run once. A text stops at an end-of-text token, before a stop string, after
    `max_new_tokens`, or where the model can read no further.

    Args:
        model: a causal language model.
        tokenizer: its tokenizer.
        prompts: B texts.
        max_new_tokens: at most so many tokens are added.
        batch_size: rows in one forward pass.
        stop: strings that end a text; they are not part of it.

    Returns:
        B texts: what follows the prompt, with the space it begins with, without special tokens.

    Raises:
        InvalidInput: an empty prompt, one longer than the model reads, or no token to add.
    """
    if max_new_tokens < 1:
        raise InvalidInput(f"max_new_tokens is {max_new_tokens}; it must be at least 1")
    stops = (stop,) if isinstance(stop, str) else tuple(stop or ())
    if not all(stops):
        raise InvalidInput("a stop string is empty; give it some text or leave it out")
    rows = [tuple(row) for row in prompt_tokens(tokenizer, prepare(model, prompts))]
    unique = list(dict.fromkeys(rows))
    for row in unique:
        check_length(model, len(row))
    writer = _Writer(model, tokenizer, max_new_tokens, stops)
    texts: dict[tuple[int, ...], str] = {}
    with torch.no_grad(), evaluating(model):
        for chosen in batches([len(row) for row in unique], batch_size, SPREAD):
            chunk = [unique[row] for row in chosen]
            texts.update(zip(chunk, writer.write(chunk), strict=True))
    return [texts[row] for row in rows]


class _Writer:
    """Writes one batch after another with the same limits."""

    def __init__(
        self, model: Any, tokenizer: Any, max_new_tokens: int, stops: tuple[str, ...]
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.max_new_tokens = max_new_tokens
        self.stops = stops
        self.ends = _end_tokens(model, tokenizer)
        self.limit = longest_text(model)
        self.device = device_of(model.get_input_embeddings())

    def write(self, prompts: Sequence[tuple[int, ...]]) -> list[str]:
        """Continue prompts of nearly equal length together."""
        read = min(map(len, prompts))
        tokens = torch.tensor([row[:read] for row in prompts], device=self.device)
        written: list[list[int]] = [[] for _ in prompts]
        open_rows = set(range(len(prompts)))
        cache: Any = None
        while open_rows:
            ids, cache = self._step(tokens, cache)
            chosen = ids.tolist()
            for row, prompt in enumerate(prompts):
                if read < len(prompt):
                    chosen[row] = prompt[read]  # still reading
                elif row in open_rows:
                    written[row].append(chosen[row])
                    if self._is_done(prompt, written[row]):
                        open_rows.discard(row)
            read += 1
            tokens = torch.tensor(chosen, device=self.device)[:, None]
        return [self._text(prompt, new) for prompt, new in zip(prompts, written, strict=True)]

    def _step(self, tokens: Tensor, cache: Any) -> tuple[Tensor, Any]:
        """Read (B, T) tokens after the cached ones; the most probable next token of each row."""
        count = tokens.shape[0]
        last = torch.full((count,), tokens.shape[1] - 1)
        with head_at(self.model, torch.arange(count), last) as pick:
            output = self.model(input_ids=tokens, past_key_values=cache, use_cache=True)
            logits = pick(output.logits)  # (B, vocabulary)
        return logits.float().argmax(-1), output.past_key_values

    def _is_done(self, prompt: tuple[int, ...], new: list[int]) -> bool:
        if new[-1] in self.ends or len(new) >= self.max_new_tokens:
            return True
        if self.limit is not None and len(prompt) + len(new) > self.limit:
            return True
        return bool(self.stops) and any(stop in self._decode(prompt, new) for stop in self.stops)

    def _text(self, prompt: tuple[int, ...], new: list[int]) -> str:
        text = self._decode(prompt, new[:-1] if new[-1] in self.ends else new)
        cuts = [cut for stop in self.stops if (cut := text.find(stop)) >= 0]
        return text[: min(cuts)] if cuts else text

    def _decode(self, prompt: tuple[int, ...], new: list[int]) -> str:
        """New text as it stands after the prompt: SentencePiece drops a leading space."""
        before = self._plain([*prompt])
        whole = self._plain([*prompt, *new])
        return whole[len(before) :] if whole.startswith(before) else self._plain(new)

    def _plain(self, ids: list[int]) -> str:
        return self.tokenizer.decode(
            ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )


def _end_tokens(model: Any, tokenizer: Any) -> set[int]:
    """Tokens that end a text, as the model and the tokenizer name them."""
    ends: set[int] = set()
    for holder in (getattr(model, "generation_config", None), model.config, tokenizer):
        value = getattr(holder, "eos_token_id", None)
        ends.update([value] if isinstance(value, int) else value or ())
    return ends
