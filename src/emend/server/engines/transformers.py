"""The engine in this process: any causal language model of transformers.

Each release is answered by a copy of the model's modules that shares all weights with it and has
the release's patch attached, so that releases answer next to one another, and an edit that is
being made on the model itself (which puts hooks there) is seen by none of them.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import nn

from emend.models import ensure_start
from emend.server.engines._engine import Release, weights_of
from emend.server.engines._local import LocalEngine
from emend.server.engines._prompts import Prompt, PromptReader
from emend.server.engines._request import Request
from emend.server.engines._rows import Row, Scored
from emend.server.engines._sampling import Sampling, TokenScore
from emend.server.engines._worker import Worker


class TransformersEngine(LocalEngine):
    """Answers by a model in this process.

    Args:
        model: The unedited model; it is not changed.
        tokenizer: Its tokenizer.
        max_prompt_tokens: The longest prompt that is read.
    """

    name = "transformers"

    def __init__(self, model: nn.Module, tokenizer: Any, max_prompt_tokens: int = 4096) -> None:
        ensure_start(model, tokenizer)
        self._reader = PromptReader(model, tokenizer, max_prompt_tokens)
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
        patch, made = weights_of(release), sharing_copy(self._model)
        if patch.factors:
            patch.attach(made, allow_other_base=True)  # built for this very model
        return made

    def close(self) -> None:
        """See `Engine`."""
        self._worker.close()

    async def _request(self, handle: Any, kind: str, body: Mapping[str, Any]) -> _Request:
        """Read a request's prompts; a long one keeps no other request waiting."""
        prompts = await asyncio.to_thread(self._reader.read, kind, body)
        return _Request(self._worker, handle, self._reader, kind, body, prompts)


class _Request(Request[Row]):
    """A request whose prompts may be echoed, with their scores."""

    def __init__(
        self,
        worker: Worker,
        model: nn.Module,
        reader: PromptReader,
        kind: str,
        body: Mapping[str, Any],
        prompts: Sequence[Prompt],
    ) -> None:
        self._worker, self._model = worker, model
        super().__init__(reader, kind, body, prompts)
        echoed = self.prompts if body.get("echo") else ()
        self._scored = [Scored(model, one.tokens, self.most or 0, self._tell) for one in echoed]

    def _text(self, prompt: Prompt, limit: int, number: int) -> Row:
        sampling = Sampling(self.temperature, self.top_p, self.seed(number, 2**63))
        return Row(self._model, prompt, limit, sampling, self.stops, self.most, self._tell)

    def _submit(self, row: Row) -> None:
        self._worker.submit(row)

    def cancel(self) -> None:
        """See `Request`."""
        super().cancel()
        for one in self._scored:
            one.cancelled = True

    async def run(self) -> None:
        """See `Request`."""
        for one in self._scored:
            self._worker.submit(one)
        await self._until(self._scored)
        if self.body.get("max_tokens") == 0:  # the echo alone
            return
        for row, one in zip(self.rows, self._scored, strict=False):  # none are scored without echo
            if row.limit == 1 and one.next is not None:  # as lm-evaluation-harness asks
                row.add(one.next, self.reader.tokenizer, set())
        await super().run()

    def _found(self) -> Iterator[tuple[str, str | None, list[TokenScore] | None]]:
        """See `Request`."""
        if not self._scored:
            yield from super()._found()
            return
        for prompt, row, scored in zip(self.prompts, self.rows, self._scored, strict=True):
            text = prompt.text
            if text is None:
                text = self.reader.tokenizer.decode(
                    list(prompt.tokens), clean_up_tokenization_spaces=False
                )
            scores = (scored.scores or [])[prompt.hidden :]
            scores[:1] = [TokenScore(one.token, None) for one in scores[:1]]
            both = None if self.most is None else [*scores, *row.scores]
            yield text + row.text, row.finish or "length", both


def sharing_copy(model: nn.Module) -> nn.Module:
    """Copy the modules of a model, not its weights: both read the same tensors."""
    tensors = [*model.parameters(), *model.buffers()]
    made = copy.deepcopy(model, {id(one): one for one in tensors})
    return made.eval()
