"""A request that a worker answers: its texts, written or scored, whole or as they grow."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from emend.errors import EmendError, InvalidInput
from emend.server.engines._answers import Answers
from emend.server.engines._prompts import Prompt
from emend.server.engines._rows import Row, Scored
from emend.server.engines._sampling import Sampling, TokenScore
from emend.server.engines._worker import Worker


class Request:
    """One request: its prompts times n texts, and what was found for each.

    Args:
        worker: Who writes and scores.
        handle: The model that is asked.
        kind: "completions" or "chat".
        body: What is asked.
        prompts: As they were read.
        limits: How many tokens may follow each.
    """

    def __init__(
        self,
        worker: Worker,
        handle: Any,
        kind: str,
        body: Mapping[str, Any],
        prompts: Sequence[Prompt],
        limits: Sequence[int],
    ) -> None:
        self.worker, self.body = worker, body
        self.is_chat = kind == "chat"
        tokens = sum(len(one.tokens) for one in prompts)
        self.answers = Answers(kind, worker.tokenizer, tokens)
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()
        self.most = _most(kind, body)
        self.echoes = bool(body.get("echo"))
        stop = body.get("stop")
        stops = (stop,) if isinstance(stop, str) else tuple(stop or ())
        count = int(body.get("n") or 1)
        self.rows: list[Row] = []
        self.prompts: list[Prompt] = []
        for prompt, limit in zip(prompts, limits, strict=True):
            for number in range(count):
                sampling = _sampling(body, number)
                row = Row(handle, prompt, limit, sampling, stops, self.most, self._tell)
                self.rows.append(row)
                self.prompts.append(prompt)
        self.scored = [
            Scored(handle, row.prompt, self.most or 0, self._tell)
            for row in self.rows
            if self.echoes
        ]

    @property
    def new_tokens(self) -> int:
        """How many tokens were written."""
        return sum(len(row.tokens) for row in self.rows)

    def cancel(self) -> None:
        """Tell the worker that nobody waits any more."""
        for one in (*self.rows, *self.scored):
            one.cancelled = True

    async def run(self) -> None:
        """Wait until all texts are there."""
        for one in self.scored:
            self.worker.submit(one)
        await self._until(self.scored)
        if self._only_echo:
            return
        for row, one in zip(self.rows, self.scored, strict=False):  # none are scored without echo
            if row.limit == 1 and one.next is not None:  # as lm-evaluation-harness asks
                row.add(one.next, self.worker.tokenizer, set())
        begun = [row for row in self.rows if row.is_open]
        for row in begun:
            self.worker.submit(row)
        await self._until(begun)

    async def chunks(self) -> AsyncIterator[dict[str, Any]]:
        """Give the texts as they grow."""
        if self.echoes:
            raise InvalidInput("echo with stream is not supported: leave one of them out")
        for row in self.rows:
            self.worker.submit(row)
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
        texts = self._echoed() if self.echoes else self._written()
        choices = [self.answers.choice(index, *one) for index, one in enumerate(texts)]
        return self.answers.whole(choices, self.new_tokens)

    def _written(self) -> Iterator[tuple[str, str | None, list[TokenScore] | None]]:
        """Give text, reason of the end, and scores of each choice."""
        for row in self.rows:
            yield row.text, row.finish, None if self.most is None else row.scores

    def _echoed(self) -> Iterator[tuple[str, str | None, list[TokenScore] | None]]:
        """Give the same behind the prompts."""
        for prompt, row, scored in zip(self.prompts, self.rows, self.scored, strict=True):
            text = prompt.text
            if text is None:
                text = self.worker.tokenizer.decode(
                    list(prompt.tokens), clean_up_tokenization_spaces=False
                )
            scores = (scored.scores or [])[prompt.hidden :]
            scores[:1] = [TokenScore(one.token, None) for one in scores[:1]]
            both = None if self.most is None else [*scores, *row.scores]
            yield text + row.text, row.finish or "length", both

    @property
    def _only_echo(self) -> bool:
        return self.echoes and self.body.get("max_tokens") == 0

    async def _until(self, these: Sequence[Row | Scored]) -> None:
        while True:
            self._check(these)
            if not any(one.is_open for one in these):
                return
            await self._changed.wait()
            self._changed.clear()

    def _check(self, these: Sequence[Row | Scored]) -> None:
        for one in these:
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


def _sampling(body: Mapping[str, Any], number: int) -> Sampling:
    """Return how a request wants the tokens of a text chosen, the number-th of a prompt."""
    temperature, top_p, seed = (body.get(name) for name in ("temperature", "top_p", "seed"))
    return Sampling(
        1.0 if temperature is None else float(temperature),
        1.0 if top_p is None else float(top_p),
        None if seed is None else (int(seed) + number) % 2**63,
    )
