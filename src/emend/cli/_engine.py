"""The flags of `emend serve` that say who answers, and how that engine is begun."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from emend.cli._options import Loading, flag
from emend.errors import InvalidInput

if TYPE_CHECKING:
    from emend.server import Engine


class EngineChoice(str, Enum):
    """The engines there are."""

    transformers = "transformers"
    llamacpp = "llamacpp"
    vllm = "vllm"


VLLM_FLAGS = ("engine_url", "engine_model", "adapter_dir")


@dataclass(frozen=True)
class EngineFlags:
    """The flags that choose an engine."""

    engine: Annotated[
        EngineChoice,
        flag(
            "Who answers: transformers, any model in this process; llamacpp, llama.cpp in this "
            "process, for a .gguf file or a packaged model; vllm, a vLLM server of yours."
        ),
    ] = EngineChoice.transformers
    engine_url: Annotated[str | None, flag("Of --engine vllm: its address.", metavar="URL")] = None
    engine_model: Annotated[
        str | None,
        flag("Of --engine vllm: what its --model is; by default what ours is.", metavar="NAME"),
    ] = None
    adapter_dir: Annotated[
        Path | None,
        flag(
            "Of --engine vllm: its VLLM_LORA_RESOLVER_CACHE_DIR, where patches are written.",
            metavar="DIRECTORY",
        ),
    ] = None
    max_prompt_tokens: Annotated[int, flag("The longest prompt.", min=1)] = 4096

    def begin(self, model: str, loading: Loading) -> tuple[Any, Any, Engine]:
        """Load a model, by which edits are solved, and begin the engine that answers.

        Returns:
            (model, tokenizer, engine).

        Raises:
            InvalidInput: The engine cannot serve the model.
            MissingExtra: A package that the engine needs is not installed.
        """
        own = {name: value for name, value in vars(self).items() if name in VLLM_FLAGS}
        if self.engine is EngineChoice.vllm:
            return self._vllm(model, loading)
        if given := [f"--{name}" for name, value in own.items() if value is not None]:
            raise InvalidInput(
                f"{given[0]} is given with --engine {self.engine.value}, expected --engine vllm: "
                "leave it out"
            )
        if self.engine is EngineChoice.llamacpp:
            from emend.server.engines.llamacpp import LlamaCppEngine, gguf_of

            base = gguf_of(model, accept_license=loading.accept_license)
            loaded = loading.load(model)
            return *loaded, LlamaCppEngine(*loaded, base, self.max_prompt_tokens)
        from emend.server.engines.transformers import TransformersEngine

        loaded = loading.load(model)
        return *loaded, TransformersEngine(*loaded, self.max_prompt_tokens)

    def _vllm(self, model: str, loading: Loading) -> tuple[Any, Any, Engine]:
        if self.engine_url is None or self.adapter_dir is None:
            raise InvalidInput(
                "--engine vllm is given, expected --engine_url and --adapter_dir with it: its "
                "address, and the directory that VLLM_LORA_RESOLVER_CACHE_DIR names"
            )
        from emend.server.engines.vllm import VllmEngine, VllmOptions

        name = self.engine_model or model
        options = VllmOptions(self.engine_url, name, self.adapter_dir, self.max_prompt_tokens)
        loaded = loading.load(model)
        return *loaded, VllmEngine(*loaded, options)
