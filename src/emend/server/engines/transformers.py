"""The engine in this process: any causal language model of transformers.

Each release is answered by a copy of the model's modules that shares all weights with it and has
the release's patch attached, so that releases answer next to one another, and an edit that is
being made on the model itself (which puts hooks there) is seen by none of them.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from torch import nn

from emend.errors import EmendError, InvalidInput
from emend.models import encode, ensure_start
from emend.models.forward import longest_text, text_config
from emend.models.positions import prompt_tokens
from emend.models.start import start_ids
from emend.patches import WeightPatch
from emend.server.engines._answers import Answers
from emend.server.engines._engine import Release
from emend.server.engines._rows import Row, Scored
from emend.server.engines._sampling import Sampling, TokenScore
from emend.server.engines._worker import Worker

DEFAULT_TOKENS = {"completions": 16, "chat": 256}
"""New tokens where a request names no number."""


class TransformersEngine:
    """Answers by a model in this process.

    Args:
        model: The unedited model; it is not changed.
        tokenizer: Its tokenizer.
        max_prompt_tokens: The longest prompt that is read.
    """

    name = "transformers"

    def __init__(self, model: nn.Module, tokenizer: Any, max_prompt_tokens: int = 4096) -> None:
        ensure_start(model, tokenizer)
        self.tokenizer = tokenizer
        limit = longest_text(model)
        self.max_prompt_tokens = min(max_prompt_tokens, limit or max_prompt_tokens)
        self._longest = limit
        self._vocabulary = int(text_config(model).vocab_size)
        self._base = sharing_copy(model)
        self._model = model
        self._worker = Worker(model, tokenizer)

    @property
    def load(self) -> int:
        """See `Engine`."""
        return self._worker.load

    def base(self) -> nn.Module:
        """See `Engine`."""
        return self._base

    def prepare(self, name: str, release: Release) -> nn.Module:
        """See `Engine`."""
        del name
        if not isinstance(release.patch, WeightPatch):
            raise InvalidInput(
                f"the method {release.patch.method!r} makes a memory, expected a change of "
                "weights to serve: name another method (`emend methods`)"
            )
        made = sharing_copy(self._model)
        if release.patch.factors:
            release.patch.attach(made, allow_other_base=True)  # built for this very model
        return made

    def discard(self, handle: Any) -> None:
        """See `Engine`; requests that hold it keep it alive."""

    def close(self) -> None:
        """See `Engine`."""
        self._worker.close()

    async def answer(self, handle: Any, kind: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """See `Engine`."""
        request = _Request(self, handle, kind, body)
        try:
            await request.run()
        finally:
            request.cancel()
        answers = request.answers
        choices = [answers.choice(index, *one) for index, one in enumerate(request.texts())]
        return answers.whole(choices, request.new_tokens)

    async def stream(
        self, handle: Any, kind: str, body: Mapping[str, Any]
    ) -> AsyncIterator[dict[str, Any]]:
        """See `Engine`."""
        request = _Request(self, handle, kind, body)
        try:
            async for chunk in request.chunks():
                yield chunk
        finally:
            request.cancel()

    def submit(self, one: Row | Scored) -> None:
        """Have the worker write or score a text."""
        self._worker.submit(one)

    def rows_of(self, kind: str, body: Mapping[str, Any]) -> list[list[int]]:
        """Tokenise the prompts of a request, checked to be of a length that is read."""
        rows = [self._chat_row(body)] if kind == "chat" else self._text_rows(body)
        for row in rows:
            if not row:
                raise InvalidInput("a prompt has no tokens, expected at least one: write some text")
            if len(row) > self.max_prompt_tokens:
                raise InvalidInput(
                    f"a prompt has {len(row)} tokens, expected at most {self.max_prompt_tokens}: "
                    "shorten it"
                )
            if min(row) < 0 or max(row) >= self._vocabulary:
                raise InvalidInput(
                    f"a prompt has a token id outside 0..{self._vocabulary - 1}: use the ids of "
                    "this model's tokenizer"
                )
        return rows

    def limit_of(self, kind: str, body: Mapping[str, Any], row: Sequence[int]) -> int:
        """Return how many tokens may follow a prompt."""
        asked = body.get("max_completion_tokens") or body.get("max_tokens")
        limit = DEFAULT_TOKENS[kind] if asked is None else int(asked)
        return limit if self._longest is None else max(1, min(limit, self._longest - len(row)))

    def _text_rows(self, body: Mapping[str, Any]) -> list[list[int]]:
        prompt: Any = body["prompt"]
        if isinstance(prompt, list) and prompt and isinstance(prompt[0], int):
            return [list(prompt)]
        prompts: list[Any] = [prompt] if isinstance(prompt, str) else list(prompt)
        if isinstance(prompts[0], list):
            return [list(one) for one in prompts]
        if any(not one.strip() for one in prompts):
            raise InvalidInput("a prompt is empty, expected some text: write it")
        if body.get("echo"):
            return [encode(self.tokenizer, [one]).input_ids[0].tolist() for one in prompts]
        return prompt_tokens(self.tokenizer, prompts)

    def _chat_row(self, body: Mapping[str, Any]) -> list[int]:
        import jinja2

        messages = [
            {"role": one["role"], "content": one.get("content") or ""} for one in body["messages"]
        ]
        if not getattr(self.tokenizer, "chat_template", None):
            raise InvalidInput(
                "the model has no chat template, expected one for chat: ask /v1/completions"
            )
        try:
            return list(
                self.tokenizer.apply_chat_template(
                    messages, tokenize=True, add_generation_prompt=True, return_dict=True
                )["input_ids"]
            )
        except jinja2.TemplateError as error:
            reason = " ".join(str(error).split())
            raise InvalidInput(
                f"the chat template refuses these messages ({reason}): change their roles"
            ) from None


class _Request:
    """One request: its prompts times n texts, and what was found for each."""

    def __init__(
        self, engine: TransformersEngine, handle: Any, kind: str, body: Mapping[str, Any]
    ) -> None:
        self.engine, self.kind, self.body = engine, kind, body
        prompts = engine.rows_of(kind, body)
        self.answers = Answers(kind, engine.tokenizer, sum(map(len, prompts)))
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()
        self.most = _most(kind, body)
        self.echoes = bool(body.get("echo"))
        stop = body.get("stop")
        stops = (stop,) if isinstance(stop, str) else tuple(stop or ())
        count = int(body.get("n") or 1)
        self.rows: list[Row] = []
        for prompt in prompts:
            for number in range(count):
                seed = body.get("seed")
                temperature = body.get("temperature")
                sampling = Sampling(
                    1.0 if temperature is None else float(temperature),
                    1.0 if body.get("top_p") is None else float(body["top_p"]),
                    None if seed is None else (int(seed) + number) % 2**63,
                )
                limit = engine.limit_of(kind, body, prompt)
                row = Row(handle, prompt, limit, sampling, stops, self.most, self._tell)
                self.rows.append(row)
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
            self.engine.submit(one)
        await self._until(self.scored)
        for row, one in zip(self.rows, self.scored, strict=False):
            if (
                row.limit == 1 and not self._only_echo and one.next is not None
            ):  # as lm-evaluation-harness asks
                row.add(one.next, self.engine.tokenizer, set())
        begun = [row for row in self.rows if row.is_open and not self._only_echo]
        for row in begun:
            self.engine.submit(row)
        await self._until(begun)

    async def chunks(self) -> AsyncIterator[dict[str, Any]]:
        """Give the texts as they grow."""
        if self.echoes:
            raise InvalidInput("echo with stream is not supported: leave one of them out")
        for row in self.rows:
            self.engine.submit(row)
        if self.kind == "chat":
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

    def texts(self) -> list[tuple[str, str | None, list[TokenScore] | None]]:
        """Return text, reason of the end, and scores of each choice."""
        if not self.echoes:
            return [
                (row.text, row.finish, None if self.most is None else row.scores)
                for row in self.rows
            ]
        return [self._echoed(*pair) for pair in zip(self.rows, self.scored, strict=True)]

    def _echoed(self, row: Row, scored: Scored) -> tuple[str, str | None, list[TokenScore] | None]:
        front = len(start_ids(self.engine.tokenizer))
        given = row.prompt
        if isinstance(self.body["prompt"], str) or isinstance(self.body["prompt"][0], str):
            hidden = front if given[:front] == start_ids(self.engine.tokenizer) else 0
        else:
            hidden = 0  # ids are as the client chose them
        before = self.engine.tokenizer.decode(
            list(given[hidden:]), clean_up_tokenization_spaces=False
        )
        scores = (scored.scores or [])[hidden:]
        scores[:1] = [TokenScore(one.token, None) for one in scores[:1]]
        both = None if self.most is None else [*scores, *row.scores]
        return before + row.text, row.finish or "length", both

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


def sharing_copy(model: nn.Module) -> nn.Module:
    """Copy the modules of a model, not its weights: both read the same tensors."""
    tensors = [*model.parameters(), *model.buffers()]
    made = copy.deepcopy(model, {id(one): one for one in tensors})
    return made.eval()
