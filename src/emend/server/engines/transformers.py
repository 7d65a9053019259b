"""The engine in this process: any causal language model of transformers.

Each release is answered by a copy of the model's modules that shares all weights with it and has
the release's patch attached, so that releases answer next to one another, and an edit that is
being made on the model itself (which puts hooks there) is seen by none of them.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncIterator, Mapping
from typing import Any

from torch import nn

from emend.errors import InvalidInput
from emend.models import ensure_start
from emend.patches import WeightPatch
from emend.server.engines._engine import Release
from emend.server.engines._prompts import PromptReader
from emend.server.engines._request import Request
from emend.server.engines._worker import Worker


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
        request = await self._request(handle, kind, body)
        try:
            await request.run()
        finally:
            request.cancel()
        return await asyncio.to_thread(request.whole)

    async def stream(
        self, handle: Any, kind: str, body: Mapping[str, Any]
    ) -> AsyncIterator[dict[str, Any]]:
        """See `Engine`."""
        request = await self._request(handle, kind, body)
        try:
            async for chunk in request.chunks():
                yield chunk
        finally:
            request.cancel()

    async def _request(self, handle: Any, kind: str, body: Mapping[str, Any]) -> Request:
        """Read a request's prompts; a long one keeps no other request waiting."""
        prompts = await asyncio.to_thread(self._reader.read, kind, body)
        limits = [self._reader.limit(kind, body, one) for one in prompts]
        return Request(self._worker, handle, kind, body, prompts, limits)


def sharing_copy(model: nn.Module) -> nn.Module:
    """Copy the modules of a model, not its weights: both read the same tensors."""
    tensors = [*model.parameters(), *model.buffers()]
    made = copy.deepcopy(model, {id(one): one for one in tensors})
    return made.eval()
