"""Key covariances: C = E[k k^T], uncentred, over the tokens of many texts (spec S3).

One pass collects the covariances of all given layers, and stops at the last of them. It runs the
unedited model, whatever is attached to it. Results are cached on disk under a key (`_identity`)
made of the model, its tokenizer, the layer, the content of the texts and `_settings`. A pass that
was killed resumes from its last checkpoint, with the same result to the last bit.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor

from emend import _identity, _io
from emend._brief import brief
from emend._progress import progress
from emend._warn import warn
from emend.editing import tensor_cache
from emend.editing.memory import check_fits, estimate_covariance
from emend.editing.samples import OwnSamples
from emend.editing.sources import Given, as_source
from emend.editing.sums import MASSIVE, Sums
from emend.editing.texts import Source
from emend.editing.token_batches import WINDOW, Batch, Layout, Position, batches_of, layout_for
from emend.errors import InvalidInput, NumericalFailure
from emend.models import ModelView, base, ensure_start, model_fingerprint, tokens_fingerprint

TOKENS_PER_KEY = 20
"""Tokens to collect for each dimension of a key."""

SECONDS = 60.0
"""Seconds between two checkpoints of the sums."""


Shards: TypeAlias = Callable[[Sums, Iterator[Batch]], None]
"""Adds the keys of batches to sums; takes all batches."""

REMEDY = "take fewer layers or a smaller batch, or start anyway with ignore_memory"
_GONE = "{} is missing or broken: collect the statistics again"


@brief
@dataclass(frozen=True)
class Covariance:
    """The key covariance of one layer.

    Attributes:
        matrix: (intermediate_size, intermediate_size) float32 or float64.
        count: Number of tokens averaged over.
        source: Name of the texts.
        texts: Identity of the texts.
        left_out: Number of tokens left out because their keys are massive.
        file: Where it is cached; None where it is not.
    """

    matrix: Tensor
    count: int
    source: str
    texts: str
    left_out: int = 0
    file: Path | None = None

    @property
    def note(self) -> dict[str, Any]:
        """All fields but matrix and file, JSON-able."""
        names = ("count", "source", "texts", "left_out")
        return {name: getattr(self, name) for name in names}

    def describe(self) -> dict[str, Any]:
        """Return what a patch records of it, JSON-able."""
        return _described(self.note, self.matrix.dtype)


def cache_directory() -> Path:
    """Return the directory of cached covariances: in ``$EMEND_CACHE``, or ``~/.cache/emend``."""
    return _io.cache_directory("moments")


def collect_covariance(
    view: ModelView,
    tokenizer: Any,
    texts: Given,
    layers: Sequence[int],
    *,
    max_tokens: int | None = None,
    dtype: torch.dtype = torch.float32,
    cache: Path | None = None,
    window: int = WINDOW,
    batch_size: int | None = None,
    seconds: float = SECONDS,
    ignore_memory: bool = False,
    shards: Shards | None = None,
) -> dict[int, Covariance]:
    """Collect the key covariances of several layers over all tokens of ``texts``.

    Args:
        view: The model.
        tokenizer: Its tokenizer.
        texts: A source or its name or path (see `as_source`), whose documents are joined by the
            tokenizer's end-of-text token and cut into windows; or texts themselves, each a row
            cut to the model's context length. `own_samples` returns the model's own.
        layers: Layers; negative numbers count from the end.
        max_tokens: Where to stop: windows exactly there, rows before the first that would begin
            after it. None takes all.
        dtype: Dtype of the sums, float32 or float64. The product of one batch is taken in the
            keys' own precision, at least float32.
        cache: Directory to read from and write to; None caches nothing. Where it cannot be
            written, a warning names it.
        window: Most tokens of a window; never more than the model reads.
        batch_size: Windows in one pass; of rows, sixteen times as many. None takes 2 on a CPU,
            whose cache they fit, and 8 elsewhere.
        seconds: Time between two checkpoints, from which a killed run resumes.
        ignore_memory: Start even where the free memory is too small.
        shards: Runs the batches elsewhere and adds what comes back, such as `bench.RayShards`;
            without checkpoints.

    Returns:
        By layer, counted from 0.

    Raises:
        InvalidInput: There are no texts, a window has no tokens, or a layer does not exist.
        UnsupportedModel: A layer has no dense MLP, or the model does not run it.
        NotEnoughMemory: The sums do not fit.
        NumericalFailure: The model's keys are not finite.
    """
    ensure_start(view.model, tokenizer)
    source = as_source(texts)
    layers = view.numbered(layers)
    layout = layout_for(view, source, max_tokens, window, batch_size)
    names = _names(view, tokenizer, source, layers, layout, dtype)
    found = {layer: _read(cache / names[layer]) if cache else None for layer in layers}
    missing = [layer for layer in layers if found[layer] is None]
    if missing:
        if not ignore_memory:
            tokens = min(layout.window, window) * layout.rows
            needed = estimate_covariance(view, missing, dtype, tokens)
            check_fits(needed.memory, "key covariances", REMEDY, view.device(missing[0]))
        files = {layer: cache / names[layer] for layer in missing} if cache else {}
        sums = Sums(view, missing, dtype)
        found |= _run(sums, source, tokenizer, layout, files, seconds, shards)
    return {layer: one for layer, one in found.items() if one is not None}


def cached_covariance(
    view: ModelView,
    tokenizer: Any,
    source: Source,
    layers: Sequence[int],
    cache: Path,
    *,
    max_tokens: int | None = None,
) -> dict[int, Path | Covariance]:
    """Find cached key covariances; collect the missing ones in one pass.

    Returns:
        By layer, counted from 0, the file; where it could not be written, the covariance itself.
        Files are not read: with large models a single one can fill the memory.
    """
    ensure_start(view.model, tokenizer)
    layout = layout_for(view, source, max_tokens)
    layers = view.numbered(layers)
    names = _names(view, tokenizer, source, layers, layout, torch.float32)
    files = {layer: cache / names[layer] for layer in layers}
    missing = [layer for layer in layers if tensor_cache.read_note(files[layer]) is None]
    made: dict[int, Covariance] = {}
    if missing:
        made = collect_covariance(
            view, tokenizer, source, missing, max_tokens=max_tokens, cache=cache
        )
    uncached = {layer: one for layer, one in made.items() if one.file is None}
    return {layer: uncached.get(layer, file) for layer, file in files.items()}


def describe_file(path: Path) -> dict[str, Any]:
    """Describe a covariance that `cached_covariance` found; see `Covariance.describe`.

    Raises:
        InvalidInput: The file is missing by now.
    """
    note = tensor_cache.read_note(path)
    if note is None:
        raise InvalidInput(_GONE.format(path))
    return _described(note, torch.float32)


def read_covariance(path: Path) -> Covariance:
    """Read a file that `cached_covariance` found.

    Raises:
        InvalidInput: The file is missing by now.
    """
    found = _read(path)
    if found is None:
        raise InvalidInput(_GONE.format(path))
    return found


def warn_of_few(tokens: int, size: int, source: Source) -> None:
    """Warn if there are fewer tokens than dimensions of a key.

    Args:
        tokens: Number of tokens averaged over, which bounds the rank.
        size: Dimensions of a key.
        source: The texts.
    """
    if tokens < size:
        warn(
            f"the statistics hold {tokens:,} tokens of {source.name}, expected "
            f"{TOKENS_PER_KEY * size:,} ({TOKENS_PER_KEY} for each of a key's {size:,} numbers), "
            f"at the very least {size:,}: give more texts"
        )


def _run(
    sums: Sums,
    source: Source,
    tokenizer: Any,
    layout: Layout,
    files: dict[int, Path],
    seconds: float,
    shards: Shards | None,
) -> dict[int, Covariance]:
    """Collect the covariances of the layers of some sums, and cache them in files, if any."""
    path = None
    if files and shards is None:
        of = [file.name for file in files.values()]
        run = _identity.key("key covariance", of=of, rows=layout.rows)
        path = files[sums.layers[0]].with_name(f"{run}.partial")
    count = _collect(sums, source, tokenizer, layout, path, seconds, shards)
    found: dict[int, Covariance] = {}
    for layer, matrix in sums.whole().items():
        left_out = sums.left_out[layer]
        counted = count - left_out
        one = Covariance(matrix.div_(counted), counted, source.name, source.identity, left_out)
        if files and _write(files[layer], one):
            one = replace(one, file=files[layer])
        found[layer] = one
    if path:
        tensor_cache.drop(path)
    return found


def _collect(
    sums: Sums,
    source: Source,
    tokenizer: Any,
    layout: Layout,
    path: Path | None,
    seconds: float,
    shards: Shards | None,
) -> int:
    """Run the source through the model and return the number of tokens."""
    position = sums.restore(path) if path else Position()
    if isinstance(source, OwnSamples):
        source.rows(path.parent if path else None)
    batches = batches_of(source, tokenizer, layout, position)
    total = None
    if layout.limit is not None and source.packed:
        total = -(-(layout.limit - position.tokens) // (layout.window * layout.rows))
    written = time.monotonic()
    with base(sums.view.model):
        if shards is not None:
            shards(sums, batches)
        for batch in progress(batches, "collecting key covariances", total):
            sums.run(batch)
            if path and time.monotonic() - written >= seconds:
                sums.save(path, position)
                written = time.monotonic()
    if not position.tokens:
        raise InvalidInput(
            f"no texts to collect key covariances from ({source.name}): give some hundred"
        )
    if not all(bool(matrix.diagonal().isfinite().all()) for matrix in sums.matrices.values()):
        raise NumericalFailure(
            "the keys are not finite: load the model in bfloat16 or float32, or check its weights"
        )
    return position.tokens


def _names(
    view: ModelView,
    tokenizer: Any,
    source: Source,
    layers: Sequence[int],
    layout: Layout,
    dtype: torch.dtype,
) -> dict[int, str]:
    """Name the files of the key covariances of layers counted from 0."""
    common: dict[str, Any] = {
        "model": model_fingerprint(view.model),
        "tokenizer": tokens_fingerprint(view.model, tokenizer),
        "texts": source.identity,
        "settings": _settings(source, layout, dtype),
    }
    keys = {layer: _identity.key("key covariance", **common, layer=layer) for layer in layers}
    return {layer: f"{key}.safetensors" for layer, key in keys.items()}


def _settings(source: Source, layout: Layout, dtype: torch.dtype) -> dict[str, Any]:
    """List what a key covariance depends on besides model, tokenizer, layer and texts."""
    return {
        "window": layout.window if source.packed else None,
        "max_tokens": layout.limit,
        "dtype": dtype,
        "massive": MASSIVE,
    }


def _described(note: dict[str, Any], dtype: torch.dtype) -> dict[str, Any]:
    return {
        "kind": "key covariance",
        "source": note["source"],
        "texts": note["texts"],
        "tokens": note["count"],
        "left_out": note["left_out"],
        "dtype": str(dtype).removeprefix("torch."),
    }


def _read(path: Path) -> Covariance | None:
    """Read a cached covariance; None if it is missing or broken."""
    note, found = tensor_cache.read_note(path), tensor_cache.read(path, "moment")
    return Covariance(found[0], **note, file=path) if note and found else None


def _write(path: Path, covariance: Covariance) -> bool:
    """Cache a key covariance; return whether that was possible."""
    return tensor_cache.write(path, {"moment": covariance.matrix}, covariance.note)
