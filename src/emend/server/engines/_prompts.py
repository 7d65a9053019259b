"""Read the prompts of a request: their tokens, checked to be of a length that is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from emend.edits.joining import without_end_spaces
from emend.errors import InvalidInput
from emend.models import encode
from emend.models.forward import longest_text, text_config
from emend.models.positions import prompt_tokens, text_tokens

DEFAULT_TOKENS = {"completions": 16, "chat": 256}
"""New tokens where a request names no number."""


@dataclass(frozen=True)
class Prompt:
    """A prompt as the model reads it.

    Attributes:
        tokens: Its ids.
        hidden: Tokens in front that no echo shows: a start token before a text.
        text: What an echo shows; None where a request gave ids.
        after_space: Whether the space that a new text begins with is in the prompt.
    """

    tokens: tuple[int, ...]
    hidden: int = 0
    text: str | None = None
    after_space: bool = False


class PromptReader:
    """Reads the prompts of one model.

    Args:
        model: The model.
        tokenizer: Its tokenizer.
        max_tokens: The longest prompt.
        longest: The longest prompt and answer together; None takes the model's, if it has any.
    """

    def __init__(
        self, model: nn.Module, tokenizer: Any, max_tokens: int, longest: int | None = None
    ) -> None:
        self.tokenizer = tokenizer
        self._longest = longest or longest_text(model)
        self._most = min(max_tokens, self._longest or max_tokens)
        self._vocabulary = int(text_config(model).vocab_size)

    def read(self, kind: str, body: Mapping[str, Any]) -> list[Prompt]:
        """Read the prompts of a request.

        Raises:
            InvalidInput: One is empty or too long, or has an id that the model has not.
        """
        prompts = [self._chat(body)] if kind == "chat" else self._texts(body)
        for prompt in prompts:
            count = len(prompt.tokens)
            if not count:
                raise InvalidInput("a prompt has no tokens, expected at least one: write some text")
            if count > self._most:
                raise InvalidInput(
                    f"a prompt has {count} tokens, expected at most {self._most}: shorten it"
                )
            if min(prompt.tokens) < 0 or max(prompt.tokens) >= self._vocabulary:
                raise InvalidInput(
                    f"a prompt has a token id outside 0..{self._vocabulary - 1}: use the ids of "
                    "this model's tokenizer"
                )
        return prompts

    def limit(self, kind: str, body: Mapping[str, Any], prompt: Prompt) -> int:
        """Return how many tokens may follow a prompt."""
        asked = body.get("max_completion_tokens") or body.get("max_tokens")
        limit = DEFAULT_TOKENS[kind] if asked is None else int(asked)
        if self._longest is None:
            return limit
        return max(1, min(limit, self._longest - len(prompt.tokens)))

    def _texts(self, body: Mapping[str, Any]) -> list[Prompt]:
        given: Any = body["prompt"]
        if isinstance(given, list) and given and isinstance(given[0], int):
            return [Prompt(tuple(given))]
        prompts: list[Any] = [given] if isinstance(given, str) else list(given)
        if isinstance(prompts[0], list):
            return [Prompt(tuple(one)) for one in prompts]
        if any(not one.strip() for one in prompts):
            raise InvalidInput("a prompt is empty, expected some text: write it")
        if body.get("echo"):
            return [self._echoed(one) for one in prompts]
        return [
            Prompt(tuple(row), after_space=without_end_spaces(text) != text)
            for text, row in zip(prompts, prompt_tokens(self.tokenizer, prompts), strict=True)
        ]

    def _echoed(self, text: str) -> Prompt:
        """Read a text to its last space, and find what was put around it."""
        row: list[int] = encode(self.tokenizer, [text]).input_ids[0].tolist()
        (own,) = text_tokens(self.tokenizer, [text])
        for front in range(len(row) - len(own) + 1):
            if row[front : front + len(own)] == own:
                return Prompt(tuple(row[: front + len(own)]), front, text)
        return Prompt(tuple(row), 0, text)

    def _chat(self, body: Mapping[str, Any]) -> Prompt:
        import jinja2

        messages: Sequence[dict[str, str]] = [
            {"role": one["role"], "content": one.get("content") or ""} for one in body["messages"]
        ]
        if not getattr(self.tokenizer, "chat_template", None):
            raise InvalidInput(
                "the model has no chat template, expected one for chat: ask /v1/completions"
            )
        try:
            found = self.tokenizer.apply_chat_template(
                messages, tokenize=True, add_generation_prompt=True, return_dict=True
            )
        except jinja2.TemplateError as error:
            reason = " ".join(str(error).split())
            raise InvalidInput(
                f"the chat template refuses these messages ({reason}): change their roles"
            ) from None
        return Prompt(tuple(found["input_ids"]))
