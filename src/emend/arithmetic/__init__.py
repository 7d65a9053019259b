"""Task arithmetic: vectors of what training changed, added, negated and merged into a base.

By file:

    tensor_files, checkpoints    safetensors read and written as streams; two checkpoints compared
    dense                        a vector of all weights on the disk
    vectors                      vectors from two checkpoints, or from an adapter
    formula                      "0.4*a + 0.3*b - c" as a weight for each vector
    merging                      linear, TIES, DARE: the deltas of one tensor become one
    combining, mergekit          a formula, or a mergekit file, over all tensors of a base
    tuning, measures             the scale by a grid on validation data; metrics by name
    finetuning                   a vector by fine-tuning on texts
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from emend.arithmetic.combining import Combined as Combined
    from emend.arithmetic.combining import combine as combine
    from emend.arithmetic.dense import Vector as Vector
    from emend.arithmetic.dense import is_vector as is_vector
    from emend.arithmetic.dense import load_vector as load_vector
    from emend.arithmetic.dense import scaled as scaled
    from emend.arithmetic.finetuning import FineTuning as FineTuning
    from emend.arithmetic.finetuning import finetune as finetune
    from emend.arithmetic.formula import parse as parse
    from emend.arithmetic.measures import measure as measure
    from emend.arithmetic.mergekit import combine_config as combine_config
    from emend.arithmetic.merging import METHODS as METHODS
    from emend.arithmetic.merging import Merging as Merging
    from emend.arithmetic.tuning import Measure as Measure
    from emend.arithmetic.tuning import Tuning as Tuning
    from emend.arithmetic.tuning import tune as tune
    from emend.arithmetic.vectors import Made as Made
    from emend.arithmetic.vectors import vector as vector

_HOME = {
    "Combined": "combining",
    "combine": "combining",
    "combine_config": "mergekit",
    "Vector": "dense",
    "is_vector": "dense",
    "load_vector": "dense",
    "scaled": "dense",
    "FineTuning": "finetuning",
    "finetune": "finetuning",
    "parse": "formula",
    "measure": "measures",
    "METHODS": "merging",
    "Merging": "merging",
    "Measure": "tuning",
    "Tuning": "tuning",
    "tune": "tuning",
    "Made": "vectors",
    "vector": "vectors",
}

__all__ = [  # pyright: ignore[reportUnsupportedDunderAll]
    *_HOME,
]


def __getattr__(name: str) -> Any:
    """Import what `name` stands for, when it is first asked for: torch is not loaded before."""
    if name in _HOME:
        return getattr(importlib.import_module(f"emend.arithmetic.{_HOME[name]}"), name)
    raise AttributeError(f"module 'emend.arithmetic' has no attribute {name!r}")
