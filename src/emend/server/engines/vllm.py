"""The engine vLLM, a server of its own: patches are folders that it loads, requests go through.

vLLM's filesystem resolver loads the folder that a request's `model` names, where its PEFT config
names exactly what vLLM's --model is. Keys and values are cached under the adapter's name and path,
so that a folder is named by its content and never written again.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from emend.errors import EndpointFailure, InvalidInput, MissingExtra, first_line
from emend.models import ensure_start
from emend.models.start import start_ids
from emend.patches import WeightPatch
from emend.server.engines._engine import Release, Unreachable, weights_of
from emend.server.engines._facts import check_facts
from emend.server.engines._prompts import PromptReader

try:
    import httpx2
except ImportError as error:
    raise MissingExtra.of("httpx2", "openai", "ask vLLM") from error

PATHS = {"completions": "/v1/completions", "chat": "/v1/chat/completions"}
PATIENCE = 600.0
"""Seconds that an answer of the engine may take."""


@dataclass(frozen=True)
class VllmOptions:
    """Where vLLM is, and how it finds patches.

    Attributes:
        url: Its address, such as http://127.0.0.1:8001.
        model: What its --model is; patches name it as their base.
        folder: Its VLLM_LORA_RESOLVER_CACHE_DIR, which must be the same directory here and there.
        max_prompt_tokens: The longest prompt that is read.
    """

    url: str
    model: str
    folder: Path
    max_prompt_tokens: int = 4096


class VllmEngine:
    """Answers by a vLLM server.

    Args:
        model: The unedited model in transformers, by which edits are solved.
        tokenizer: Its tokenizer, the same as vLLM's.
        options: Where vLLM is.

    Raises:
        EndpointFailure: It does not answer, or does not serve the model.
    """

    name = "vllm"

    def __init__(self, model: nn.Module, tokenizer: Any, options: VllmOptions) -> None:
        ensure_start(model, tokenizer)
        self._reader = PromptReader(model, tokenizer, options.max_prompt_tokens)
        self._tokenizer, self._options = tokenizer, options
        self._url = options.url.rstrip("/").removesuffix("/v1")
        self._under_way = 0
        self._check_model()

    @property
    def load(self) -> int:
        """See `Engine`."""
        return self._under_way

    def base(self) -> str:
        """See `Engine`; the handle is the name that vLLM knows a model by."""
        return self._options.model

    def prepare(self, name: str, release: Release) -> str:
        """See `Engine`."""
        del name
        patch = weights_of(release)
        if not any(factor.rank for factor in patch.factors.values()):
            return self._options.model
        made = self._written(patch)

        def ask(prompts: Sequence[tuple[list[int], int]]) -> list[str]:
            return [self._greedy(made, *one) for one in prompts]

        check_facts(self.name, patch, self._tokenizer, ask)
        return made

    def discard(self, handle: Any) -> None:
        """See `Engine`; the folder stays, since vLLM may be answering by it."""

    def close(self) -> None:
        """See `Engine`; vLLM goes on."""

    async def answer(self, handle: str, kind: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """See `Engine`."""
        given = await asyncio.to_thread(self._given, handle, kind, body)
        async with self._asked(kind, given) as response:
            await response.aread()
            return _whole(response)

    async def stream(
        self, handle: str, kind: str, body: Mapping[str, Any]
    ) -> AsyncIterator[dict[str, Any]]:
        """See `Engine`."""
        given = await asyncio.to_thread(self._given, handle, kind, body)
        async with self._asked(kind, {**given, "stream": True}) as response:
            async for line in response.aiter_lines():
                data = line.removeprefix("data:").strip()
                if not line.startswith("data:"):
                    continue
                if data == "[DONE]":
                    return
                yield _read(data)
        raise EndpointFailure("vLLM ended a stream before [DONE]: its log has more")

    def _written(self, patch: WeightPatch) -> str:
        """Write a patch in a folder named by its content, unless it is there; return its name."""
        folder = self._options.folder
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".making-") as aside:
            made = patch.export(aside, format="peft", base_model=self._options.model).path
            if not (folder / made.name).exists():
                made.rename(folder / made.name)
        return made.name

    def _given(self, handle: str, kind: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Write a request as vLLM reads it: texts as the ids that begin as edits were made."""
        given = {**body, "model": handle}
        if kind == "chat":
            return given
        prompt: Any = body["prompt"]
        first = prompt if isinstance(prompt, str) else prompt[0]
        if body.get("echo") and isinstance(first, str) and start_ids(self._tokenizer):
            raise InvalidInput(
                "echo is given with a text, expected token ids: this model's texts begin with a "
                "start token, which vLLM would echo; tokenise it by POST /tokenize"
            )
        prompts = self._reader.read(kind, body)
        given["prompt"] = [list(one.tokens) for one in prompts]
        return given

    @asynccontextmanager
    async def _asked(self, kind: str, given: Mapping[str, Any]) -> AsyncGenerator[Any]:
        """Send a request, and check the status of its answer."""
        self._under_way += 1
        try:
            async with (
                httpx2.AsyncClient(timeout=PATIENCE) as client,
                client.stream("POST", self._url + PATHS[kind], json=given) as response,
            ):
                if response.status_code != 200:
                    await response.aread()
                    raise _failure(response)
                yield response
        except httpx2.HTTPError as error:
            raise self._unreachable(error) from None
        finally:
            self._under_way -= 1

    def _greedy(self, model: str, tokens: list[int], limit: int) -> str:
        """Return the greedy continuation of a prompt."""
        body = {"model": model, "prompt": tokens, "max_tokens": limit, "temperature": 0}
        return str(_whole(self._sent("POST", PATHS["completions"], body))["choices"][0]["text"])

    def _sent(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        try:
            response = httpx2.request(method, self._url + path, json=body, timeout=PATIENCE)
        except httpx2.HTTPError as error:
            raise self._unreachable(error) from None
        if response.status_code != 200:
            raise _failure(response)
        return response

    def _check_model(self) -> None:
        found = _whole(self._sent("GET", "/v1/models"))
        names = [str(one["id"]) for one in found.get("data", ())]
        if self._options.model not in names:
            raise EndpointFailure(
                f"vLLM at {self._url} serves {', '.join(names) or 'nothing'}, expected "
                f"{self._options.model!r}: --engine_model names what its --model is"
            )

    def _unreachable(self, error: Exception) -> Unreachable:
        return Unreachable(
            f"vLLM at {self._url} does not answer ({first_line(error)}): start it, or name its "
            "address (--engine_url)"
        )


def _failure(response: Any) -> Exception:
    """Write what vLLM refuses as an error of ours."""
    try:
        found = response.json()
        message = str((found.get("error") or found)["message"])
    except (ValueError, KeyError, TypeError, AttributeError):
        message = response.text
    status, line = response.status_code, " ".join(message.split())[:300]
    if status in {400, 422}:
        return InvalidInput(f"vLLM refuses this request: {line}")
    if status in {429, 503}:
        return Unreachable(f"vLLM takes no request now (status {status}): {line}")
    return EndpointFailure(f"vLLM failed on this request (status {status}): {line}")


def _whole(response: Any) -> dict[str, Any]:
    return _read(response.text)


def _read(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise EndpointFailure(f"vLLM answered {text[:100]!r}, expected a JSON object")
    if "error" in found and "choices" not in found:
        raise EndpointFailure(f"vLLM failed on this request: {found['error']}"[:300])
    return found
