"""Write what a worker found in the form of OpenAI's interface."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

from emend.server.engines._sampling import TokenScore


class Answers:
    """Answers to one request.

    Args:
        kind: "completions" or "chat".
        tokenizer: The model's.
        prompt_tokens: How many tokens the prompts have together.
    """

    def __init__(self, kind: str, tokenizer: Any, prompt_tokens: int) -> None:
        self.is_chat = kind == "chat"
        self.tokenizer = tokenizer
        self.prompt_tokens = prompt_tokens
        self._id = f"{'chatcmpl' if self.is_chat else 'cmpl'}-{uuid.uuid4().hex}"
        self._created = int(time.time())
        self._ends: dict[int, int] = {}  # characters of each text whose scores were given

    def whole(self, choices: Sequence[dict[str, Any]], new_tokens: int) -> dict[str, Any]:
        """Return the answer to a request that is not streamed."""
        kind = "chat.completion" if self.is_chat else "text_completion"
        return {**self._head(kind), "choices": list(choices), "usage": self.usage(new_tokens)}

    def chunk(self, *choices: dict[str, Any]) -> dict[str, Any]:
        """Return a part of a streamed answer."""
        kind = "chat.completion.chunk" if self.is_chat else "text_completion"
        return {**self._head(kind), "choices": list(choices)}

    def choice(
        self, index: int, text: str, finish: str | None, scores: Sequence[TokenScore] | None
    ) -> dict[str, Any]:
        """Return one text of an answer."""
        content: dict[str, Any] = {"text": text}
        if self.is_chat:
            content = {"message": {"role": "assistant", "content": text}}
        return {"index": index, **content, "finish_reason": finish, **self._scored(index, scores)}

    def delta(
        self, index: int, text: str, finish: str | None, scores: Sequence[TokenScore] | None
    ) -> dict[str, Any]:
        """Return what was added to a text; the first of a chat names the role."""
        if not self.is_chat:
            return self.choice(index, text, finish, scores)
        content = {"content": text} if text else {}
        scored = self._scored(index, scores)
        return {"index": index, "delta": content, "finish_reason": finish, **scored}

    def opening(self, index: int) -> dict[str, Any]:
        """Return the first part of a streamed chat."""
        return {
            "index": index,
            "delta": {"role": "assistant", "content": ""},
            "finish_reason": None,
            "logprobs": None,
        }

    def usage(self, new_tokens: int) -> dict[str, int]:
        """Count the tokens."""
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": new_tokens,
            "total_tokens": self.prompt_tokens + new_tokens,
        }

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self._id, "object": kind, "created": self._created}

    def _scored(self, index: int, scores: Sequence[TokenScore] | None) -> dict[str, Any]:
        if scores is None:
            return {"logprobs": None}
        return {"logprobs": self._of_chat(scores) if self.is_chat else self._of_text(index, scores)}

    def _of_text(self, index: int, scores: Sequence[TokenScore]) -> dict[str, Any]:
        tokens = [self._text(one.token) for one in scores]
        tops: list[dict[str, float] | None] = []
        for one in scores:
            top: dict[str, float] = {}
            for token, value in one.top:  # two ids may decode to one text: the larger value stays
                top.setdefault(self._text(token), value)
            tops.append(None if one.log_prob is None else top)
        begin = self._ends.get(index, 0)
        *offsets, self._ends[index] = accumulate(map(len, tokens), initial=begin)
        return {
            "tokens": tokens,
            "token_logprobs": [one.log_prob for one in scores],
            "top_logprobs": tops,
            "text_offset": offsets,
        }

    def _of_chat(self, scores: Sequence[TokenScore]) -> dict[str, Any]:
        def entry(token: int, value: float | None) -> dict[str, Any]:
            text = self._text(token)
            return {"token": text, "logprob": value, "bytes": list(text.encode())}

        return {
            "content": [
                {**entry(one.token, one.log_prob), "top_logprobs": [entry(*top) for top in one.top]}
                for one in scores
            ]
        }

    def _text(self, token: int) -> str:
        return self.tokenizer.decode([token], clean_up_tokenization_spaces=False)
