"""What the published ROME recorded on two tiny models, read from ``recordings``.

The weights of the models are drawn anew from their seed; ``recordings/README.md`` describes all.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

FOLDER = Path(__file__).with_name("recordings")
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


@cache
def recorded(name: str) -> Recorded:
    """Load what was recorded on one model."""
    info = json.loads((FOLDER / name / "runs.json").read_text(encoding="utf-8"))
    tensors = load_file(FOLDER / name / "tensors.safetensors")
    texts = json.loads((FOLDER / "texts.json").read_text(encoding="utf-8"))
    return Recorded(
        name=name,
        model=_drawn(name, tensors["weights.norm"], tensors["weights.first"]),
        tokenizer=PreTrainedTokenizerFast(tokenizer_file=str(FOLDER / "tokenizer.json")),
        templates=tuple(info["contexts"]),
        texts=tuple(texts),
        runs={run["tag"]: run for run in info["runs"]},
        tensors=tensors,
    )


def _drawn(name: str, norms: Tensor, first: Tensor) -> nn.Module:
    """The recorded model: transformers' initial weights for seed 0, matrices times three.

    Another version of transformers may draw them in another order; the test is skipped there, as
    the first number and the norm of every parameter tell.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(FOLDER / name))
    parameters = list(model.parameters())
    with torch.no_grad():
        for parameter in parameters:
            parameter.mul_(3.0 if parameter.ndim == 2 else 1.0)
    found = torch.stack([parameter.detach().flatten()[0] for parameter in parameters])
    sizes = torch.stack([parameter.detach().double().norm() for parameter in parameters])
    if not (torch.allclose(found, first) and torch.allclose(sizes, norms)):
        pytest.skip(
            f"transformers {transformers.__version__} draws other initial weights than those that "
            "were recorded: install the version of constraints.txt"
        )
    return model.eval()


def relative(found: Tensor, expected: Tensor) -> float:
    """Relative error |found - expected| / |expected| in float64."""
    difference = (found.double() - expected.double()).norm()
    return float(difference / expected.double().norm())
