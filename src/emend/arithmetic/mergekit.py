"""Merge files of mergekit, for the methods that both have.

`merge_method` linear (the mean of checkpoints, Wortsman et al. 2022, arXiv 2203.05482),
task_arithmetic, ties, dare_linear and dare_ties; `models` with `weight` and `density`;
`parameters` normalize, rescale, lambda, weight, density; `dtype` and `out_dtype`. What mergekit has
besides (slices, gradients of weights, filters by tensor, other tokenizers) is refused.

The formulas are mergekit's: `density` is 1 where it is not given, a delta of dare_* is rescaled to
its L1 norm before, and a mean divides by the sum of the signed weights. Numbers are added in
float32, in whatever dtype the checkpoints are; mergekit adds in `dtype`. The random numbers of
dare_* are other ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from emend._parse import read_document
from emend._validate import Fault, Problems, Record
from emend.arithmetic.checkpoints import Checkpoint, check_alike, open_checkpoint
from emend.arithmetic.combining import Combined, Merge, write_checkpoint
from emend.arithmetic.dense import check_finite
from emend.arithmetic.merging import METHODS, Merging
from emend.arithmetic.sources import CheckpointSource, Source
from emend.arithmetic.vectors import DTYPES
from emend.errors import InvalidInput
from emend.models.placing import at_least_float32

TOP = (
    *("merge_method", "base_model", "models", "parameters", "dtype", "out_dtype"),
    *("tokenizer_source", "name"),
)
SHARED = ("normalize", "rescale", "lambda", "int8_mask", "weight", "density")
OWN = ("weight", "density")


@dataclass(frozen=True)
class MergeFile:
    """What a merge file asks for.

    Attributes:
        method: The merge method, in mergekit's words.
        base: The base; None where linear has none.
        models: The other checkpoints.
        weights: Their weights.
        densities: Their densities.
        normalize: Whether sums are divided by the weights.
        rescale: Whether thinned deltas are rescaled.
        scale: lambda.
        dtype: Of the result; None for that of the base.
    """

    method: str
    base: str | None
    models: tuple[str, ...]
    weights: tuple[float, ...]
    densities: tuple[float, ...]
    normalize: bool
    rescale: bool
    scale: float
    dtype: torch.dtype | None


def read_merge_file(path: str | Path) -> MergeFile:
    """Read a merge file.

    Raises:
        MissingFile: There is no such file.
        BrokenFile: Something in it cannot be used; there is a line about each thing.
        MissingExtra: It is YAML and pyyaml is not installed.
    """
    document = read_document(Path(path), "a merge file")
    problems = Problems(str(path), document.line_of)
    top = Record.of(document.content, problems, TOP, what="the merge")
    found = _read(top) if top else None
    problems.check()
    assert found is not None
    return found


def _read(top: Record) -> MergeFile:
    method = top.choice("merge_method", METHODS) or "linear"
    base = top.text("base_model", required=method != "linear")
    if top.values.get("tokenizer_source") not in (None, "base"):
        fault = Fault("is not base", "the base's tokenizer", "remove it, or use mergekit")
        top.note("tokenizer_source", fault)
    shared = top.record("parameters", SHARED)
    models = list(top.records("models", ("model", "parameters"), 1))
    names = [one.text("model") or "" for one in models]
    kept = [n for n, name in enumerate(names) if method == "linear" or name != base]
    if models and not kept:
        top.note("models", Fault("has the base alone", "a tuned model", "add one"))
    chosen = [(models[n], models[n].record("parameters", OWN)) for n in kept]
    return MergeFile(
        method=method,
        base=base,
        models=tuple(names[n] for n in kept),
        weights=tuple(_number("weight", (own, shared), model) for model, own in chosen),
        densities=tuple(_number("density", (own, shared), model, 1.0) for model, own in chosen),
        normalize=_flag(shared, "normalize", method in ("linear", "ties")),
        rescale=_flag(shared, "rescale", method.startswith("dare")),
        scale=shared.number("lambda", 1.0, least=-1e9) if shared else 1.0,
        dtype=_dtype(top),
    )


def _flag(shared: Record | None, name: str, default: bool) -> bool:
    return shared.flag(name, default) if shared else default


def _number(
    name: str, places: Sequence[Record | None], model: Record, default: float | None = None
) -> float:
    """Read a number of a model, or else of all models; densities are from 0 to 1."""
    least, most = (0.0, 1.0) if name == "density" else (-1e9, 1e9)
    for record in places:
        if record is not None and record.has(name):
            return record.number(name, least=least, most=most)
    if default is None:
        model.note(f"parameters.{name}", Fault("is missing", "a number", "add it"))
    return default or 0.0


def _dtype(top: Record) -> torch.dtype | None:
    found = [
        top.choice(name, tuple(DTYPES), required=False)
        for name in ("out_dtype", "dtype")
        if top.has(name)
    ]
    return DTYPES[found[0]] if found and found[0] else None


@dataclass(frozen=True)
class Mean(Merge):
    """The weighted mean of checkpoints, as a delta of the first."""

    others: tuple[Checkpoint, ...] = ()

    def delta(self, name: str) -> Tensor:
        """See `Merge`."""
        base = self.base.places[name].read()
        wide = at_least_float32(base.dtype)
        total = torch.zeros_like(base, dtype=wide)
        for weight, one in zip(self.weights, self.others, strict=True):
            tensor = one.places[name].read()
            check_finite(name, one.name, tensor)
            total.add_(tensor.to(wide), alpha=weight)
        if self.settings.normalizes:
            total /= sum(self.weights)
        return total.sub_(base)


def combine_config(
    path: str | Path, output_path: str | Path, *, seed: int = 0, accept_license: bool = False
) -> Combined:
    """Merge checkpoints as a merge file of mergekit asks for, and write a checkpoint.

    Args:
        path: The merge file, YAML or JSON.
        output_path: A directory that is new, empty, or holds such a checkpoint to be replaced.
        seed: Of dare_linear and dare_ties.
        accept_license: The caller accepts the terms of a packaged model that has some.

    Raises:
        BrokenFile: The file asks for what is not there.
        InvalidInput: The checkpoints differ in names, shapes or vocabulary.
        EmendError: As `combine`.
    """
    found = read_merge_file(path)
    merge = (
        _mean(found, accept_license)
        if found.method == "linear"
        else _vectors(found, seed, accept_license)
    )
    made_of: Mapping[str, Any] = {
        "config": str(path),
        "vectors": dict(zip(found.models, found.weights, strict=True)),
        "merging": vars(merge.settings),
    }
    tensors, norm = write_checkpoint(merge, Path(output_path), made_of, found.dtype)
    weights = dict(zip(found.models, found.weights, strict=True))
    return Combined(Path(output_path), "checkpoint", weights, tensors, norm)


def _mean(found: MergeFile, accept_license: bool) -> Merge:
    others = tuple(open_checkpoint(one, accept_license=accept_license) for one in found.models)
    for one in others[1:]:
        check_alike(others[0], one)
    if found.normalize and not sum(found.weights):
        raise InvalidInput("the weights add up to 0, expected a mean: change one of them")
    settings = Merging(normalize=found.normalize)
    return Mean(others[0], {}, found.weights, settings, others)


def _vectors(found: MergeFile, seed: int, accept_license: bool) -> Merge:
    assert found.base is not None
    base = open_checkpoint(found.base, accept_license=accept_license)
    sources: dict[str, Source] = {
        f"{number} {name}": CheckpointSource(
            base, open_checkpoint(name, accept_license=accept_license)
        )
        for number, name in enumerate(found.models)
    }
    drops = found.method != "task_arithmetic"
    settings = Merging(
        method=cast("Any", found.method),
        density=tuple(max(one, 1e-9) for one in found.densities) if drops else None,
        seed=seed,
        scale=found.scale,
        normalize=found.normalize,
        rescale="l1" if found.rescale else "none",
        signed=True,
    )
    return Merge(base, sources, found.weights, settings)
