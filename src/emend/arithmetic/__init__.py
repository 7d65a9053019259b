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

from typing import TYPE_CHECKING

from emend._lazy import lazily

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

__getattr__, __dir__ = lazily(__name__)

__all__ = [
    "METHODS",
    "Combined",
    "FineTuning",
    "Made",
    "Measure",
    "Merging",
    "Tuning",
    "Vector",
    "combine",
    "combine_config",
    "finetune",
    "is_vector",
    "load_vector",
    "measure",
    "parse",
    "scaled",
    "tune",
    "vector",
]
