"""Greedy continuations of prompts, in batches that hold no padding at all.

Rows of unequal length run together by reading the longer prompts' last tokens one at a time,
where the shorter ones already write. Every row then sees exactly what it sees alone, in every
architecture: no padding, no position ids, no masks.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from emend.edits.joining import without_end_spaces
from emend.errors import InvalidInput
from emend.models._forward import batches, check_length, evaluating, head_at, longest_text
from emend.models.attachments import attachments
from emend.models.endpoint import Endpoint
from emend.models.lanes import Asked, Reader, ask, grouped, mixed
from emend.models.passes import Batch, reading
from emend.models.placing import device_of
from emend.models.voices import voices

SPREAD = 8
"""Prompts in one batch differ by at most this many tokens: each costs one short step."""


@dataclass(frozen=True)
class Continuation:
    """What a model writes after one prompt.

    Attributes:
        text: the text, with the space it begins with, without special tokens.
        log_probs: natural log-probability of each new token, an end-of-text token included; empty
            where the model gives none (an endpoint).
    """

    text: str
    log_probs: tuple[float, ...] = ()


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
        Where the prompt itself ends with a space, the model reads it without (see
        `emend.edits.joining`), and the text begins with none.

    Raises:
        InvalidInput: an empty prompt, one longer than the model reads, or no token to add.
    """
    found = continuations(
        model,
        tokenizer,
        prompts,
        max_new_tokens=max_new_tokens,
        batch_size=batch_size,
        stop=stop,
    )
    return [one.text for one in found]


def continuations(
    model: nn.Module,
    tokenizer: Any,
    prompts: Sequence[str],
    *,
    max_new_tokens: int = 16,
    batch_size: int = 32,
    stop: str | Sequence[str] | None = None,
) -> list[Continuation]:
    """Continue each prompt greedily as `generate` does, with the probability of each new token."""
    if max_new_tokens < 1:
        raise InvalidInput(f"max_new_tokens is {max_new_tokens}; it must be at least 1")
    stops = (stop,) if isinstance(stop, str) else tuple(stop or ())
    if not all(stops):
        raise InvalidInput("a stop string is empty; give it some text or leave it out")
    if isinstance(model, Endpoint):
        texts = _complete(model, tokenizer, prompts, max_new_tokens, stops)
        found = [Continuation(text) for text in texts]
    else:
        found = _write(model, tokenizer, prompts, max_new_tokens, stops, batch_size)
    return [
        one
        if without_end_spaces(prompt) == prompt
        else Continuation(one.text.lstrip(" "), one.log_probs)
        for prompt, one in zip(prompts, found, strict=True)
    ]


def _write(
    model: nn.Module,
    tokenizer: Any,
    prompts: Sequence[str],
    max_new_tokens: int,
    stops: tuple[str, ...],
    batch_size: int,
) -> list[Continuation]:
    prompts_asked = ask(model, tokenizer, prompts)
    for asked in prompts_asked:
        for reader, row in zip(asked.readers, asked.prompts, strict=True):
            check_length(reader.model, len(row))
    texts: dict[Asked, Continuation] = {}
    with torch.no_grad(), evaluating(model):
        for group in grouped(dict.fromkeys(prompts_asked), _written_together):
            writer = _Writer(group[0].readers, tokenizer, max_new_tokens, stops)
            for chosen in batches([asked.length for asked in group], batch_size, _spread(model)):
                chunk = [group[row] for row in chosen]
                texts.update(zip(chunk, writer.write(chunk), strict=True))
    return [texts[asked] for asked in prompts_asked]


def _complete(
    model: Endpoint,
    tokenizer: Any,
    prompts: Sequence[str],
    max_new_tokens: int,
    stops: tuple[str, ...],
) -> list[str]:
    """The same by a model that is only there to be asked."""
    heard = voices(model, tokenizer, prompts)
    for each in heard:
        if len(each) != 1 or each[0].model is not model or not each[0].prompt.strip():
            raise InvalidInput(
                f"{model.name} is asked something empty, or together with another voice: an "
                "endpoint answers alone, so that only patches that act on prompts (and without "
                "contrast) can be attached"
            )
    asked = [without_end_spaces(each[0].prompt) for each in heard]
    return model.complete(asked, max_new_tokens=max_new_tokens, stop=stops)


def _written_together(asked: Asked) -> Hashable:
    """What is alike in prompts that one writer takes: all their voices end them at one step."""
    alone = len(asked.readers) == 1
    return asked.readers, None if alone else tuple(map(len, asked.prompts))


def _spread(model: nn.Module) -> int:
    """How many tokens prompts may differ by that are written together."""
    whole = any(getattr(one, "needs_whole_prompts", False) for one in attachments(model))
    return 0 if whole else SPREAD


class _Lane:
    """What one voice of each prompt reads: its model, its cache, and how far it is."""

    def __init__(self, reader: Reader, prompts: Sequence[tuple[int, ...]]) -> None:
        self.reader = reader
        self.prompts = prompts
        self.read = min(map(len, prompts))
        self.cache: Any = None
        self.batch = Batch(torch.tensor([len(prompt) - 1 for prompt in prompts]))
        model: Any = reader.model
        self.device = device_of(model.get_input_embeddings())

    def begin(self) -> list[list[int]]:
        """As much of every prompt as the shortest has."""
        return [[*prompt[: self.read]] for prompt in self.prompts]

    def step(self, tokens: Sequence[Sequence[int]]) -> Tensor:
        """Read (B, T) tokens after the cached ones; logits (B, vocabulary) after the last."""
        model: Any = self.reader.model
        ids = torch.tensor(tokens, device=self.device)
        count, length = ids.shape
        rows, last = torch.arange(count), torch.full((count,), length - 1)
        acting = self.reader.acting()
        with acting, reading(model, self.batch), head_at(model, rows, last) as pick:
            output = model(input_ids=ids, past_key_values=self.cache, use_cache=True)
            logits = pick(output.logits)
        self.cache = output.past_key_values
        self.batch.start += length
        return logits

    def next_tokens(self, chosen: Sequence[int]) -> list[list[int]]:
        """What to read next: the rest of the longer prompts, and of the others what was chosen."""
        read, self.read = self.read, self.read + 1
        pairs = zip(self.prompts, chosen, strict=True)
        return [[prompt[read] if read < len(prompt) else token] for prompt, token in pairs]


class _Writer:
    """Writes one batch after another with the same readers and limits."""

    def __init__(
        self,
        readers: tuple[Reader, ...],
        tokenizer: Any,
        max_new_tokens: int,
        stops: tuple[str, ...],
    ) -> None:
        self.readers = readers
        self.tokenizer = tokenizer
        self.max_new_tokens = max_new_tokens
        self.stops = stops
        # A token is a character or more, or a byte of one.
        self.reach = 4 * max(map(len, stops), default=0) + 4
        self.ends: set[int] = set()
        for reader in readers:
            self.ends |= _end_tokens(reader.model, tokenizer)
        limits = [longest_text(reader.model) for reader in readers]
        self.limit = min((limit for limit in limits if limit is not None), default=None)

    def write(self, asked: Sequence[Asked]) -> list[Continuation]:
        """Continue prompts of nearly equal length together."""
        lanes = [
            _Lane(reader, [one.prompts[number] for one in asked])
            for number, reader in enumerate(self.readers)
        ]
        weights = torch.tensor([one.weights for one in asked])
        longest = [max(one.prompts, key=len) for one in asked]
        written: list[list[int]] = [[] for _ in asked]
        log_probs: list[list[float]] = [[] for _ in asked]
        open_rows = set(range(len(asked)))
        tokens = [lane.begin() for lane in lanes]
        while open_rows:
            logits = [lane.step(ids) for lane, ids in zip(lanes, tokens, strict=True)]
            heard = mixed(logits, weights).float()  # (B, vocabulary)
            chosen = heard.argmax(-1).tolist()
            certain = (heard.amax(-1) - heard.logsumexp(-1)).tolist()
            for row, prompt in enumerate(lanes[0].prompts):
                if lanes[0].read >= len(prompt) and row in open_rows:
                    written[row].append(chosen[row])
                    log_probs[row].append(certain[row])
                    if self._is_done(longest[row], written[row]):
                        open_rows.discard(row)
            tokens = [lane.next_tokens(chosen) for lane in lanes]
        rows = zip(lanes[0].prompts, written, log_probs, strict=True)
        return [Continuation(self._text(prompt, new), tuple(sure)) for prompt, new, sure in rows]

    def _is_done(self, prompt: tuple[int, ...], new: list[int]) -> bool:
        if new[-1] in self.ends or len(new) >= self.max_new_tokens:
            return True
        if self.limit is not None and len(prompt) + len(new) > self.limit:
            return True
        if not self.stops:
            return False
        # Decoding a long prompt at every step takes longer than the step: first the end alone.
        end = self._plain([prompt[-1], *new[-self.reach :]])
        if not any(stop in end for stop in self.stops):
            return False
        return any(stop in self._decode(prompt, new) for stop in self.stops)

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
