"""One running llama.cpp (package xllamacpp): a model with at most one adapter, in a few slots.

What llama.cpp does with several adapters in one server was measured (spec: serving engines): a
request that names no adapters reuses keys and values computed under others, and its prompt cache
in memory ignores them. Here a server has one adapter, whose scale is 1 in every request, and no
prompt cache in memory, so that all keys and values in it were computed by the same weights.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from emend.errors import EmendError, InvalidInput, MissingExtra, first_line
from emend.server.engines._prompts import Prompt
from emend.server.engines._sampling import TokenScore
from emend.server.engines._texts import Text

logger = logging.getLogger("emend.server")

DEFAULTS: Mapping[str, Any] = {
    "samplers": ["temperature", "top_p"],
    "repeat_penalty": 1.0,
    "cache_prompt": True,
}
"""llama.cpp's own would draw from the 40 most probable tokens only, and so on."""

SLOTS = 4
"""Texts that one server writes at the same time; each slot has a context of its own in memory."""

PATIENCE = 10.0
"""Seconds that the end of a server may take before it is left to the end of the process."""


@dataclass(frozen=True)
class LlamaOptions:
    """How llama.cpp is started.

    Attributes:
        context: Tokens of a prompt and its answer, at most.
        threads: Threads that compute.
        slots: Texts that are written at the same time.
    """

    context: int
    threads: int
    slots: int = SLOTS


class LlamaText(Text):
    """A text that llama.cpp writes.

    Args:
        prompt: What it follows.
        fields: How it is written, as llama.cpp's /v1/completions names it.
        most: How many of the most probable tokens are kept with each; None keeps no scores.
        tell: Called in the server's thread after each new token, and where it fails.
    """

    def __init__(
        self,
        prompt: Prompt,
        fields: Mapping[str, Any],
        most: int | None,
        tell: Callable[[], None],
    ) -> None:
        super().__init__(prompt, tell)
        self._most = most
        self.body = {**DEFAULTS, **fields, "prompt": list(prompt.tokens)}
        if most is not None:
            self.body["logprobs"] = max(1, most)  # 0 gives not even those of the text

    def hear(self, chunk: Mapping[str, Any]) -> bool:
        """Take a chunk of the answer; return whether the rest is not wanted any more."""
        if "error" in chunk:
            error = chunk["error"]
            kind = InvalidInput if error.get("code") == 400 else EmendError
            self.fail(kind(f"llama.cpp refuses this request: {error.get('message')}"))
            return True
        for choice in chunk["choices"]:
            scored = choice.get("logprobs") or {}
            if self._most is not None:
                self.scores += [self._score(one) for one in scored.get("content") or ()]
            new = choice["text"]
            self.text += new.lstrip(" ") if self.after_space and not self.text else new
            if choice["finish_reason"] is not None:
                self.new_tokens = int(chunk["usage"]["completion_tokens"])
                self.finish = "stop" if choice["finish_reason"] == "stop" else "length"
        self.tell()
        return self.cancelled

    def _score(self, one: Mapping[str, Any]) -> TokenScore:
        top = tuple((each["id"], each["logprob"]) for each in one["top_logprobs"])
        return TokenScore(one["id"], one["logprob"], top[: self._most])


class RunningLlama:
    """A server of llama.cpp in this process.

    Args:
        model: The base in GGUF.
        adapter: An adapter in GGUF, which is always on; None for the base.
        options: How it is started.

    Raises:
        MissingExtra: The package xllamacpp is not installed.
        InvalidInput: llama.cpp cannot load the files.
    """

    def __init__(self, model: Path, adapter: Path | None, options: LlamaOptions) -> None:
        self._lora = [] if adapter is None else [{"id": 0, "scale": 1.0}]
        self._server: Any = _started(model, adapter, options)
        self._pool = ThreadPoolExecutor(options.slots, thread_name_prefix="emend-llama")
        self._lock = threading.Lock()
        self._under_way = 0
        # A server that is ended before its first answer never ends (xllamacpp 2026.10).
        self._ask(LlamaText(Prompt((0,)), {"max_tokens": 1}, None, lambda: None))

    @property
    def load(self) -> int:
        """How many texts wait or are under way."""
        return self._under_way

    def submit(self, text: LlamaText) -> Future[None]:
        """Have a text written in a thread of the server; what fails, the text holds.

        Raises:
            EmendError: The server has ended.
        """
        with self._lock:
            try:
                future = self._pool.submit(self._ask, text)
            except RuntimeError:
                raise EmendError("the engine has ended: start the server again") from None
            self._under_way += 1
        future.add_done_callback(self._ended)
        return future

    def close(self) -> None:
        """End it once all texts are written; waits for that."""
        self._pool.shutdown(wait=True)
        with self._lock:
            server, self._server = [self._server], None
        ending = threading.Thread(target=server.clear, name="emend-llama-end", daemon=True)
        ending.start()  # the last reference ends it
        ending.join(PATIENCE)
        if ending.is_alive():
            logger.warning("llama.cpp has not ended after %.0f s: it stays in memory", PATIENCE)

    def _ask(self, text: LlamaText) -> None:
        if not text.is_open:  # nobody waits any more
            return
        try:
            request = {**text.body, "lora": self._lora, "stream": True}
            self._server.handle_completions(request, text.hear)
        except Exception as error:
            logger.exception("llama.cpp failed on a text")
            text.fail(error)
        if text.is_open:
            text.fail(EmendError("llama.cpp ended an answer early: the server's log has more"))

    def _ended(self, _: Future[None]) -> None:
        with self._lock:
            self._under_way -= 1


def _started(model: Path, adapter: Path | None, options: LlamaOptions) -> Any:
    try:
        xllamacpp: Any = import_module("xllamacpp")
    except ImportError as error:
        raise MissingExtra.of("xllamacpp", "llamacpp", "serve by llama.cpp") from error
    params = xllamacpp.CommonParams()
    params.model.path = str(model)
    params.n_parallel = options.slots
    params.n_ctx = options.context * options.slots
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = options.threads
    params.cache_ram_mib = 0  # it would mix what different adapters computed
    params.warmup = params.fit_params = False
    params.verbosity = -1
    params.api_keys = [secrets.token_urlsafe(24)]  # it also listens on a port of 127.0.0.1
    if adapter is not None:
        params.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(str(adapter), 1.0)]
    began = time.perf_counter()
    try:
        server = xllamacpp.Server(params)
    except Exception as error:
        with_adapter = "" if adapter is None else f" with the adapter {adapter.name}"
        raise InvalidInput(
            f"llama.cpp cannot load {model}{with_adapter} ({first_line(error)}), expected a GGUF "
            "file of a model that it knows: try --engine transformers"
        ) from None
    logger.info("llama.cpp has started in %.2f s", time.perf_counter() - began)
    return server
