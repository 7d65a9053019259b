"""A request that an engine in this process answers: its texts, whole or as they grow."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, Generic, TypeVar

from emend.errors import EmendError, InvalidInput
from emend.server.engines._answers import Answers
from emend.server.engines._prompts import Prompt, PromptReader
from emend.server.engines._sampling import TokenScore
from emend.server.engines._texts import Awaited, Text

T = TypeVar("T", bound=Text)


class Request(ABC, Generic[T]):
    """One request: its prompts times n texts, and what was found for each.

    Args:
        reader: Who read the prompts.
        kind: "completions" or "chat".
        body: What is asked.
        prompts: As they were read.
    """

    def __init__(
        self, reader: PromptReader, kind: str, body: Mapping[str, Any], prompts: Sequence[Prompt]
    ) -> None:
        self.reader, self.body = reader, body
        self.is_chat = kind == "chat"
        tokens = sum(len(one.tokens) for one in prompts)
        self.answers = Answers(kind, reader.tokenizer, tokens)
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()
        self.most = _most(kind, body)
        stop = body.get("stop")
        self.stops = (stop,) if isinstance(stop, str) else tuple(stop or ())
        temperature, top_p = body.get("temperature"), body.get("top_p")
        self.temperature = 1.0 if temperature is None else float(temperature)
        self.top_p = 1.0 if top_p is None else float(top_p)
        numbers = range(int(body.get("n") or 1))
        self.prompts = [prompt for prompt in prompts for _ in numbers]
        self.rows: list[T] = [
            self._text(prompt, reader.limit(kind, body, prompt), number)
            for prompt in prompts
            for number in numbers
        ]

    @abstractmethod
    def _text(self, prompt: Prompt, limit: int, number: int) -> T:
        """Make the number-th text that follows a prompt, of `limit` new tokens at most."""

    @abstractmethod
    def _submit(self, row: T) -> None:
        """Have the engine write a text."""

    def seed(self, number: int, below: int) -> int | None:
        """Return the seed of the number-th text of a prompt; None where none is asked for."""
        seed = self.body.get("seed")
        return None if seed is None else (int(seed) + number) % below

    @property
    def new_tokens(self) -> int:
        """How many tokens were written."""
        return sum(row.new_tokens for row in self.rows)

    def cancel(self) -> None:
        """Tell the engine that nobody waits any more."""
        for row in self.rows:
            row.cancelled = True

    async def answer(self) -> dict[str, Any]:
        """Give the whole answer."""
        try:
            await self.run()
        finally:
            self.cancel()
        return await asyncio.to_thread(self.whole)

    async def stream(self) -> AsyncIterator[dict[str, Any]]:
        """Give the answer in chunks."""
        try:
            async for chunk in self.chunks():
                yield chunk
        finally:
            self.cancel()

    async def run(self) -> None:
        """Wait until all texts are there."""
        begun = [row for row in self.rows if row.is_open]
        for row in begun:
            self._submit(row)
        await self._until(begun)

    async def chunks(self) -> AsyncIterator[dict[str, Any]]:
        """Give the texts as they grow."""
        if self.body.get("echo"):
            raise InvalidInput("echo with stream is not supported: leave one of them out")
        for row in self.rows:
            self._submit(row)
        if self.is_chat:
            yield self.answers.chunk(*map(self.answers.opening, range(len(self.rows))))
        given, scored = [0] * len(self.rows), [0] * len(self.rows)
        ended: set[int] = set()
        while len(ended) < len(self.rows):
            await self._changed.wait()
            self._changed.clear()
            self._check(self.rows)
            for index, row in enumerate(self.rows):
                finish, text, count = row.finish, row.text, len(row.scores)
                if index in ended or (len(text) == given[index] and finish is None):
                    continue
                scores = None if self.most is None else row.scores[scored[index] : count]
                piece = self.answers.delta(index, text[given[index] :], finish, scores)
                given[index], scored[index] = len(text), count
                yield self.answers.chunk(piece)
                if finish is not None:
                    ended.add(index)
        if (self.body.get("stream_options") or {}).get("include_usage"):
            yield {**self.answers.chunk(), "usage": self.answers.usage(self.new_tokens)}

    def whole(self) -> dict[str, Any]:
        """Return the answer, once `run` has ended."""
        choices = [self.answers.choice(index, *one) for index, one in enumerate(self._found())]
        return self.answers.whole(choices, self.new_tokens)

    def _found(self) -> Iterator[tuple[str, str | None, list[TokenScore] | None]]:
        """Give text, reason of the end, and scores of each choice."""
        for row in self.rows:
            yield row.text, row.finish, None if self.most is None else row.scores

    async def _until(self, these: Sequence[Awaited]) -> None:
        while True:
            self._check(these)
            if not any(one.is_open for one in these):
                return
            await self._changed.wait()
            self._changed.clear()

    def _check(self, these: Sequence[Awaited]) -> None:
        for one in these:
            if isinstance(one.error, EmendError):
                raise one.error
            if one.error is not None:
                raise EmendError("the model failed on this request: the server's log has more")

    def _tell(self) -> None:
        """Wake whoever waits; called in the worker's thread."""
        with suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._changed.set)


def _most(kind: str, body: Mapping[str, Any]) -> int | None:
    """Return how many of the most probable tokens are asked for; None for no scores at all."""
    if kind == "chat":
        return int(body.get("top_logprobs") or 0) if body.get("logprobs") else None
    asked = body.get("logprobs")
    return None if asked is None or asked is False else int(asked)
