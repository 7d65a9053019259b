"""Key covariances: C = E[k k^T], uncentred, over the tokens of many texts (spec S3).

One pass collects those of all layers wanted, and stops at the last of them. It runs the unedited
model, whatever is attached to it. What was computed is kept on disk under a key (`_identity`) made
of the model, its tokenizer, the layer, the content of the texts and `_settings`. A pass that was
killed goes on where its sums were last written down, with the same result to the last bit.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from emend import _identity
from emend._brief import brief
from emend._progress import progress
from emend._warn import warn
from emend.editing import tensor_cache
from emend.editing.memory import check_fits, estimate_covariance
from emend.editing.samples import OwnSamples
from emend.editing.sources import Given, as_source
from emend.editing.sums import MASSIVE, Sums
from emend.editing.texts import Source
from emend.editing.token_batches import Layout, Position, batches_of
from emend.errors import InvalidInput, NumericalFailure
from emend.models import ModelView, base, ensure_start, model_fingerprint, tokens_fingerprint
from emend.models.forward import longest_text
from emend.models.placing import device_of

TOKENS_PER_KEY = 20
"""Tokens that are enough for each dimension of a key."""

WINDOW = 512
"""Tokens of a window by default, where the model reads as many."""

ROWS, ROWS_ON_CPU = 8, 2
"""Windows in one pass by default; on a CPU as many as its cache holds."""

TEXTS_A_WINDOW = 16
"""Texts that are run at once in place of each window, where texts are rows of their own."""

SECONDS = 60.0
"""Time between two writings of the sums."""


REMEDY = "take fewer layers or a smaller batch, or begin all the same by ignore_memory"
_GONE = "{} is no longer there, or broken: collect the statistics again"


@brief
@dataclass(frozen=True)
class Covariance:
    """The key covariance of one layer's keys.

    Attributes:
        matrix: (inner, inner) float32 or float64.
        count: Number of tokens that it is the mean over.
        source: Where the texts came from.
        texts: What tells these texts from all others.
        left_out: Number of tokens that were left out, since their keys are massive.
        file: Where it is kept; None where it is not.
    """

    matrix: Tensor
    count: int
    source: str
    texts: str
    left_out: int = 0
    file: Path | None = None

    @property
    def note(self) -> dict[str, Any]:
        """All of it but the matrix, JSON-able."""
        names = ("count", "source", "texts", "left_out")
        return {name: getattr(self, name) for name in names}

    def describe(self) -> dict[str, Any]:
        """What a patch keeps of it, JSON-able."""
        return _described(self.note, self.matrix.dtype)


def cache_directory() -> Path:
    """Where statistics are kept: ``$EMEND_CACHE``, or ``~/.cache/emend``."""
    return Path(os.environ.get("EMEND_CACHE") or Path.home() / ".cache" / "emend") / "moments"


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
) -> dict[int, Covariance]:
    """Collect the key covariances of several layers over all tokens of ``texts``.

    Args:
        view: The model.
        tokenizer: Its tokenizer.
        texts: A source or its name or path (see `as_source`), whose documents are joined by the
            tokenizer's end-of-text token and cut in windows; or texts themselves, each of which
            is then a row of its own, cut to what the model reads. `own_samples` gives those that
            the model makes itself.
        layers: Blocks whose keys are wanted; negative numbers count from the end.
        max_tokens: Where to stop. Windows stop there exactly; of texts, none is begun after it.
            None takes all.
        dtype: Of the sums, float32 or float64. The product of one batch is taken in the keys' own
            precision, at least float32.
        cache: Directory to look in and to keep the result in; None keeps nothing. One that cannot
            be written is named in a warning, and nothing is kept.
        window: Tokens of a window, at most; never more than the model reads.
        batch_size: Windows in one pass; texts, sixteen times as many. None takes 2 on a CPU, whose
            cache they fit, and 8 elsewhere.
        seconds: How often the sums are written down, for a run that is killed to go on from.
        ignore_memory: Begin even where the memory free will not do.

    Returns:
        By layer, counted from 0.

    Raises:
        InvalidInput: No texts, a window of no tokens, or a layer that the model does not have.
        UnsupportedModel: A layer has no dense MLP, or the model passes it by.
        NotEnoughMemory: The sums will not fit.
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
        sums = Sums(view, missing, dtype)
        path = None
        if cache:
            run = _identity.key(
                "key covariance", of=[names[layer] for layer in missing], rows=layout.rows
            )
            path = cache / f"{run}.partial"
        count = _collect(sums, source, tokenizer, layout, path, seconds)
        for layer, matrix in sums.whole().items():
            left_out = sums.left_out[layer]
            counted = count - left_out
            moment = Covariance(
                matrix.div_(counted), counted, source.name, source.identity, left_out
            )
            if cache and _write(cache / names[layer], moment):
                moment = replace(moment, file=cache / names[layer])
            found[layer] = moment
        if path:
            tensor_cache.drop(path)
    return {layer: moment for layer, moment in found.items() if moment is not None}


def cached_covariance(
    view: ModelView,
    tokenizer: Any,
    source: Source,
    layers: Sequence[int],
    cache: Path,
    *,
    max_tokens: int | None = None,
) -> dict[int, Path | Covariance]:
    """Find several layers' key covariances; what is missing is collected, in one pass.

    Returns:
        By layer, counted from 0, the file; where it could not be written, what would be in it.
        What is in a file is not read: with large models a single one can fill the memory.
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
    unkept = {layer: moment for layer, moment in made.items() if moment.file is None}
    return {layer: unkept.get(layer, file) for layer, file in files.items()}


def describe_file(path: Path) -> dict[str, Any]:
    """Describe a covariance that `cached_covariance` found; see `Covariance.describe`.

    Raises:
        InvalidInput: The file has gone since.
    """
    note = tensor_cache.read_note(path)
    if note is None:
        raise InvalidInput(_GONE.format(path))
    return _described(note, torch.float32)


def read_covariance(path: Path) -> Covariance:
    """What `cached_covariance` found.

    Raises:
        InvalidInput: The file has gone since.
    """
    moment = _read(path)
    if moment is None:
        raise InvalidInput(_GONE.format(path))
    return moment


def warn_of_few(tokens: int, size: int, source: Source) -> None:
    """Warn where there are fewer tokens than a key has numbers.

    Args:
        tokens: How many tokens the key covariance was taken over.
        size: Numbers of a key: the matrix is (size, size), of rank ``tokens`` at most.
        source: Where they came from.
    """
    if tokens < size:
        warn(
            f"the statistics hold {tokens:,} tokens of {source.name}, expected "
            f"{TOKENS_PER_KEY * size:,} ({TOKENS_PER_KEY} for each of a key's {size:,} numbers), "
            f"at the very least {size:,}: give more texts"
        )


def layout_for(
    view: ModelView,
    source: Source,
    max_tokens: int | None = None,
    window: int = WINDOW,
    batch_size: int | None = None,
) -> Layout:
    """How a source is cut for a model; see `collect_covariance`.

    Raises:
        InvalidInput: A window, a batch or a count below 1.
    """
    for name, value in (("window", window), ("batch_size", batch_size), ("tokens", max_tokens)):
        if value is not None and value < 1:
            raise InvalidInput(f"{name} is {value}, expected at least 1")
    longest = longest_text(view.model)
    place = device_of(view.embeddings).type
    rows = batch_size or (ROWS_ON_CPU if place == "cpu" else ROWS)
    if source.packed:
        return Layout(min(window, longest or window), rows, max_tokens)
    if isinstance(source, OwnSamples):
        return Layout(source.length + 1, TEXTS_A_WINDOW * rows, max_tokens)
    return Layout(longest or 1 << 30, TEXTS_A_WINDOW * rows, max_tokens)


def _collect(
    sums: Sums,
    source: Source,
    tokenizer: Any,
    layout: Layout,
    path: Path | None,
    seconds: float,
) -> int:
    """Run the source through the model; the number of tokens."""
    position = sums.restore(path) if path else Position()
    if isinstance(source, OwnSamples):
        source.rows(path.parent if path else None)
    batches = batches_of(source, tokenizer, layout, position)
    total = None
    if layout.limit is not None and source.packed:
        total = -(-(layout.limit - position.tokens) // (layout.window * layout.rows))
    written = time.monotonic()
    with base(sums.view.model):
        for batch in progress(batches, "collecting key covariances", total):
            sums.run(batch)
            if path and time.monotonic() - written >= seconds:
                sums.keep(path, position)
                written = time.monotonic()
    if not position.tokens:
        raise InvalidInput(
            f"no texts to take key covariances over ({source.name}): give some hundred"
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
    """Names of files that hold the key covariances of layers counted from 0."""
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
    """What is kept under a key; None where there is nothing, or nothing whole."""
    note, found = tensor_cache.read_note(path), tensor_cache.read(path, "moment")
    return Covariance(found[0], **note, file=path) if note and found else None


def _write(path: Path, moment: Covariance) -> bool:
    """Keep a key covariance; whether that could be done."""
    return tensor_cache.write(path, {"moment": moment.matrix}, moment.note)
