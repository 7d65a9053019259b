"""How the matrices of a model are named, and their rows ordered, in GGUF files.

Names are those of the package `gguf`, by its own maps. Rows are those of the checkpoint, but for
the query and key projections of some architectures, whose rows llama.cpp's converter puts in
another order (its rotary embedding pairs neighbours, that of transformers pairs halves).
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from emend.errors import InvalidInput, MissingExtra, UnsupportedModel

SHARED = {
    "cohere": "command-r",
    "gpt_bigcode": "starcoder",
    "mistral": "llama",
    "mixtral": "llama",
    "phi": "phi2",
}
"""Model types that llama.cpp serves as an architecture of another name."""

REORDERED = frozenset({"llama"})
"""Architectures whose converter reorders the rows of query and key projections."""

IN_ORDER = frozenset(
    {"gemma", "gemma2", "gemma3", "gpt2", "phi3", "qwen2", "qwen3", "stablelm", "starcoder2"}
)
"""Architectures whose query and key projections were seen to keep their rows."""

_MOST_BLOCKS = 256
"""Taken where a description states no number of blocks."""

_ROTATED = frozenset({"attn_q", "attn_k", "attn_qkv"})


@dataclass(frozen=True)
class GgufNames:
    """The names of one model's matrices in GGUF files; see `gguf_names`.

    Attributes:
        architecture: What the key general.architecture of its files says.
        depth: Number of blocks that have names.
        heads: Numbers of heads of the queries and of the keys; zeros where they are not known.
    """

    architecture: str
    depth: int
    heads: tuple[int, int]
    _map: Any

    def tensor(self, module: str) -> str:
        """Name the tensor of a module's weight, without its suffix.

        Args:
            module: Its full name, such as "model.layers.3.mlp.down_proj".

        Returns:
            For example "blk.3.ffn_down".

        Raises:
            InvalidInput: gguf's map for this architecture has no such module.
        """
        found = self._find(module)
        if found is None:
            raise InvalidInput(
                f"gguf names no tensor of {self.architecture!r} for the module {module}, expected "
                "a linear layer of its blocks: serve it by PEFT, or merged (format='merged')"
            )
        return found

    def tensors(self, modules: Iterable[str]) -> dict[str, str]:
        """Name the tensors of several modules, whose rows can all be put in order.

        Returns:
            The names by those of the modules.

        Raises:
            InvalidInput: A module has no tensor, or the order of its rows is not known.
        """
        found = {module: self.tensor(module) for module in modules}
        for tensor in found.values():
            self._rotated_heads(tensor)
        return found

    def modules(self, names: Iterable[str]) -> dict[str, str]:
        """Find the modules that stand behind tensors.

        Args:
            names: Full names of a model's modules.

        Returns:
            Those that have a tensor, by the tensor's name without its suffix.
        """
        found = ((self._find(name), name) for name in names)
        return {tensor: name for tensor, name in found if tensor is not None}

    def to_gguf(self, tensor: str, matrix: Tensor) -> Tensor:
        """Put the rows of a matrix (out, any) in the order that GGUF files have.

        Args:
            tensor: What `tensor` names its module.
            matrix: A weight (out, in), or the factor B (out, rank) of its change.

        Raises:
            InvalidInput: It is a query or key projection whose order is not known.
        """
        heads = self._rotated_heads(tensor)
        if heads is None:
            return matrix
        split = matrix.reshape(heads, 2, matrix.shape[0] // heads // 2, -1)
        return split.transpose(1, 2).reshape(matrix.shape)

    def from_gguf(self, tensor: str, matrix: Tensor) -> Tensor:
        """Put rows back in the checkpoint's order: undo `to_gguf`, which see."""
        heads = self._rotated_heads(tensor)
        if heads is None:
            return matrix
        split = matrix.reshape(heads, matrix.shape[0] // heads // 2, 2, -1)
        return split.transpose(1, 2).reshape(matrix.shape)

    def _rotated_heads(self, tensor: str) -> int | None:
        """Give the number of heads whose rows are reordered, None where none are."""
        kind = tensor.rpartition(".")[2]
        if kind not in _ROTATED or self.architecture in IN_ORDER:
            return None
        heads = self.heads[kind == "attn_k"]
        if self.architecture not in REORDERED or kind == "attn_qkv" or not heads:
            raise InvalidInput(
                f"the order of the rows of {tensor} in GGUF files of {self.architecture!r} is not "
                "known: serve it by PEFT, or merged (format='merged')"
            )
        return heads

    def _find(self, module: str) -> str | None:
        """Ask for the full name, then without its first parts (a model within a model)."""
        parts = [part for part in module.split(".") if part != "language_model"]
        while parts:
            if (found := self._map.get_name(".".join(parts))) is not None:
                return found
            if parts.pop(0).isdigit():
                return None
        return None


def gguf_names(base: Mapping[str, Any], architecture: str | None = None) -> GgufNames:
    """Give the names of a model's matrices in GGUF files.

    Args:
        base: What `emend.patches.describe_base` says of the model.
        architecture: As GGUF files name it; None for what its model type is known to be.

    Raises:
        MissingExtra: The package gguf is not installed.
        UnsupportedModel: gguf knows no such architecture.
    """
    if importlib.util.find_spec("gguf") is None:
        raise MissingExtra.of("gguf", "gguf", "name tensors of GGUF files")
    import gguf

    known = {name: arch for arch, name in gguf.MODEL_ARCH_NAMES.items()}
    name = architecture or architecture_of(str(base.get("model_type", "")), known)
    if name not in known:
        kind = name or base.get("model_type") or base.get("architecture") or "no architecture"
        raise UnsupportedModel(
            f"the package gguf knows no architecture for {kind!r}: serve it by PEFT, or merged "
            "(format='merged'), or take a newer gguf"
        )
    depth = base.get("depth") or _MOST_BLOCKS
    config = base.get("config") or {}
    queries = config.get("num_attention_heads") or 0
    heads = (queries, config.get("num_key_value_heads") or queries)
    return GgufNames(name, depth, heads, gguf.get_tensor_name_map(known[name], depth))


def architecture_of(model_type: str, known: Iterable[str]) -> str:
    """Name the architecture of a transformers model type as GGUF files do.

    gguf's names are those of transformers, but for underscores and hyphens ("gpt_neox" is
    "gptneox"), and a part of a larger model ("gemma3_text" is "gemma3").

    Returns:
        One of the known names, or "" where none is like it.
    """
    plain = {_plain(name): name for name in known}
    for kind in (model_type, model_type.removesuffix("_text"), SHARED.get(model_type, "")):
        if _plain(kind) in plain:
            return plain[_plain(kind)]
    return ""


def _plain(name: str) -> str:
    return name.replace("_", "").replace("-", "")
