"""What the published ROME recorded on two tiny models, read from ``../shared/parity``."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

FOLDER = Path(__file__).resolve().parents[2].parent / "shared" / "parity"
NAMES = ("gpt2", "llama")
TAGS = tuple(
    f"{kind}.{i}" for kind, count in (("cov", 5), ("cov5", 5), ("nocov", 2)) for i in range(count)
)
LAYER = 2
SITES = {"gpt2": "transformer.h.2.mlp.c_proj", "llama": "model.layers.2.mlp.down_proj"}


@dataclass(frozen=True)
class Recorded:
    """One recorded model with everything that went in and came out."""

    name: str
    model: Any
    tokenizer: Any
    templates: tuple[str, ...]
    texts: tuple[str, ...]
    runs: dict[str, dict[str, Any]]
    tensors: dict[str, Tensor]

    def tensor(self, tag: str, what: str) -> Tensor:
        """A recorded tensor, such as ``tensor("cov.0", "v_star")``."""
        return self.tensors[f"{tag}.{what}"]

    @property
    def site(self) -> Any:
        """The edited down-projection."""
        return self.model.get_submodule(SITES[self.name])


@lru_cache(maxsize=2)
def recorded(name: str) -> Recorded:
    """Load one recorded model, or skip the test where the recordings are not at hand."""
    if not FOLDER.is_dir():
        pytest.skip("the recordings of the published ROME (../shared/parity) are not here")
    info = json.loads((FOLDER / f"{name}_float32.json").read_text())
    return Recorded(
        name=name,
        model=AutoModelForCausalLM.from_pretrained(FOLDER / name).eval(),
        tokenizer=AutoTokenizer.from_pretrained(FOLDER / name),
        templates=tuple(info["contexts"]),
        texts=tuple(json.loads((FOLDER / "texts.json").read_text())),
        runs={run["tag"]: run for run in info["runs"]},
        tensors=load_file(FOLDER / f"{name}_float32.safetensors"),
    )


def relative(found: Tensor, expected: Tensor) -> float:
    """Relative error |found - expected| / |expected| in float64."""
    difference = (found.double() - expected.double()).norm()
    return float(difference / expected.double().norm())
