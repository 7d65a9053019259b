"""The flags of `emend serve` that say who answers, and how that engine is begun."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any

from emend.cli._options import Loading, flag

if TYPE_CHECKING:
    from emend.server import Engine


class EngineChoice(str, Enum):
    """The engines there are."""

    transformers = "transformers"
    llamacpp = "llamacpp"


@dataclass(frozen=True)
class EngineFlags:
    """The flags that choose an engine."""

    engine: Annotated[
        EngineChoice,
        flag(
            "Who answers: transformers, any model in this process; llamacpp, llama.cpp in this "
            "process, for a .gguf file or a packaged model."
        ),
    ] = EngineChoice.transformers
    max_prompt_tokens: Annotated[int, flag("The longest prompt.", min=1)] = 4096

    def begin(self, model: str, loading: Loading) -> tuple[Any, Any, Engine]:
        """Load a model, by which edits are solved, and begin the engine that answers.

        Returns:
            (model, tokenizer, engine).

        Raises:
            InvalidInput: The engine cannot serve the model.
            MissingExtra: A package that the engine needs is not installed.
        """
        if self.engine is EngineChoice.llamacpp:
            from emend.server.engines.llamacpp import LlamaCppEngine, gguf_of

            base = gguf_of(model, accept_license=loading.accept_license)
            loaded = loading.load(model)
            return *loaded, LlamaCppEngine(*loaded, base, self.max_prompt_tokens)
        from emend.server.engines.transformers import TransformersEngine

        loaded = loading.load(model)
        return *loaded, TransformersEngine(*loaded, self.max_prompt_tokens)
