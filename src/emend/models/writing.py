"""The greedy loop: texts that are generated together, a token of each at every step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from emend.models.forward import head_at, longest_text
from emend.models.mixture import MixturePrompt, Runner, mixed
from emend.models.passes import Batch, reading
from emend.models.placing import device_of


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


class PromptBatch:
    """Prompts of nearly equal length that one model reads together, a token of each at every step.

    Args:
        runner: The model, and the context that it is run in.
        prompts: B rows of token ids.

    Attributes:
        read: Columns that were read; a row writes once its whole prompt was.
    """

    def __init__(self, runner: Runner, prompts: Sequence[tuple[int, ...]]) -> None:
        self.runner = runner
        self.prompts = prompts
        self.read = min(map(len, prompts))
        self.cache: Any = None
        self.batch = Batch(torch.tensor([len(prompt) - 1 for prompt in prompts]))
        model: Any = runner.model
        self.device = device_of(model.get_input_embeddings())

    def begin(self) -> list[list[int]]:
        """Return as many tokens of every prompt as the shortest has."""
        return [[*prompt[: self.read]] for prompt in self.prompts]

    def step(self, tokens: Sequence[Sequence[int]]) -> Tensor:
        """Read (B, T) tokens after the cached ones; logits (B, vocabulary) after the last."""
        model: Any = self.runner.model
        ids = torch.tensor(tokens, device=self.device)
        count, length = ids.shape
        rows, last = torch.arange(count), torch.full((count,), length - 1)
        acting = self.runner.acting()
        with acting, reading(model, self.batch), head_at(model, rows, last) as pick:
            output = model(input_ids=ids, past_key_values=self.cache, use_cache=True)
            logits = pick(output.logits)
        self.cache = output.past_key_values
        self.batch.start += length
        return logits

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with some rows alone, by their places."""
        places = torch.tensor(rows)
        self.cache.batch_select_indices(places)
        self.prompts = [self.prompts[row] for row in rows]
        self.batch.ends = self.batch.ends[places]

    def next_tokens(self, chosen: Sequence[int]) -> list[list[int]]:
        """Return what to read next: the rest of the longer prompts, else the chosen tokens."""
        read, self.read = self.read, self.read + 1
        pairs = zip(self.prompts, chosen, strict=True)
        return [[prompt[read] if read < len(prompt) else token] for prompt, token in pairs]


class Writer:
    """Writes one batch after another with the same runners and limits."""

    def __init__(
        self,
        runners: tuple[Runner, ...],
        tokenizer: Any,
        max_new_tokens: int,
        stops: tuple[str, ...],
    ) -> None:
        self.runners = runners
        self.tokenizer = tokenizer
        self.max_new_tokens = max_new_tokens
        self.stops = stops
        # A token is a character or more, or a byte of one.
        self.reach = 4 * max(map(len, stops), default=0) + 4
        self.ends: set[int] = set()
        for runner in runners:
            self.ends |= end_tokens(runner.model, tokenizer)
        limits = [longest_text(runner.model) for runner in runners]
        self.limit = min((limit for limit in limits if limit is not None), default=None)

    def write(self, asked: Sequence[MixturePrompt]) -> list[Continuation]:
        """Continue prompts of nearly equal length together."""
        writing = self.begin(asked)
        while writing.is_open:
            writing.step()
        return writing.found()

    def begin(self, asked: Sequence[MixturePrompt]) -> Writing:
        """Begin to continue prompts of nearly equal length together."""
        return Writing(self, asked)

    def is_done(self, prompt: tuple[int, ...], new: list[int]) -> bool:
        """Return whether a text has come to its end."""
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

    def text(self, prompt: tuple[int, ...], new: list[int]) -> str:
        """Return what was written after a prompt, up to a stop string."""
        text = self._decode(prompt, new[:-1] if new[-1] in self.ends else new)
        cuts = [cut for stop in self.stops if (cut := text.find(stop)) >= 0]
        return text[: min(cuts)] if cuts else text

    def _decode(self, prompt: tuple[int, ...], new: list[int]) -> str:
        return text_after(self.tokenizer, prompt, new)

    def _plain(self, ids: list[int]) -> str:
        return _decoded(self.tokenizer, ids)


class Writing:
    """Texts that one writer writes together, a token of each at every step."""

    def __init__(self, writer: Writer, asked: Sequence[MixturePrompt]) -> None:
        self._writer = writer
        self._components = [
            PromptBatch(runner, [one.prompts[number] for one in asked])
            for number, runner in enumerate(writer.runners)
        ]
        self._weights = torch.tensor([one.weights for one in asked])
        self._longest = [max(one.prompts, key=len) for one in asked]
        self._written: list[list[int]] = [[] for _ in asked]
        self._log_probs: list[list[float]] = [[] for _ in asked]
        self._open = set(range(len(asked)))
        self._tokens = [component.begin() for component in self._components]

    @property
    def is_open(self) -> bool:
        """Whether some text goes on."""
        return bool(self._open)

    def step(self) -> None:
        """Add a token to each text whose prompt was read to its end."""
        pairs = zip(self._components, self._tokens, strict=True)
        found = [component.step(ids) for component, ids in pairs]
        logits = mixed(found, self._weights).float()  # (B, vocabulary)
        chosen = logits.argmax(-1).tolist()
        certain = (logits.amax(-1) - logits.logsumexp(-1)).tolist()
        first = self._components[0]
        for row, prompt in enumerate(first.prompts):
            if first.read >= len(prompt) and row in self._open:
                self._written[row].append(chosen[row])
                self._log_probs[row].append(certain[row])
                if self._writer.is_done(self._longest[row], self._written[row]):
                    self._open.discard(row)
        self._tokens = [component.next_tokens(chosen) for component in self._components]

    def found(self) -> list[Continuation]:
        """Return what was written."""
        rows = zip(self._components[0].prompts, self._written, self._log_probs, strict=True)
        text = self._writer.text
        return [Continuation(text(prompt, new), tuple(sure)) for prompt, new, sure in rows]

    def text_so_far(self) -> str:
        """Return the first text as far as the next tokens cannot change it."""
        return settled(self.found()[0].text, self._writer.stops)


def text_after(tokenizer: Any, prompt: Sequence[int], new: Sequence[int]) -> str:
    """Decode new tokens in place after a prompt, without special tokens.

    A SentencePiece tokenizer drops the space that a text begins with; in place it is there.
    """
    before = _decoded(tokenizer, [*prompt])
    whole = _decoded(tokenizer, [*prompt, *new])
    return whole[len(before) :] if whole.startswith(before) else _decoded(tokenizer, [*new])


def settled(text: str, stops: Sequence[str]) -> str:
    """Return a text as far as the next tokens cannot change it.

    Cut off are half a character, and what may become a stop string.
    """
    text = text.rstrip("\ufffd")
    for stop in stops:
        begun = (size for size in range(len(stop) - 1, 0, -1) if text.endswith(stop[:size]))
        text = text[: len(text) - next(begun, 0)]
    return text


def _decoded(tokenizer: Any, ids: list[int]) -> str:
    return tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)


def end_tokens(model: Any, tokenizer: Any) -> set[int]:
    """Collect the tokens that end a text, as the model and the tokenizer name them."""
    ends: set[int] = set()
    for holder in (getattr(model, "generation_config", None), model.config, tokenizer):
        value = getattr(holder, "eos_token_id", None)
        ends.update([value] if isinstance(value, int) else value or ())
    return ends
