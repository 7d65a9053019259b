"""Second moments of keys: C = E[k k^T], uncentred, over the tokens of many texts (spec S3).

One pass collects those of all layers wanted, and stops at the last of them. What was computed is
kept on disk under a key made of the weights' hash, the layer, the texts, the count and the dtype.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from emend._files import written_aside
from emend._progress import progress
from emend.errors import InvalidInput
from emend.keyvalue.keys import forward, watching
from emend.models import ModelView
from emend.models._forward import batches, longest_text
from emend.models.positions import pad, pad_id, prompt_tokens
from emend.patches import model_hash

TOKENS_PER_KEY = 20
"""Tokens that are enough for each dimension of a key."""


@dataclass(frozen=True)
class Moment:
    """The second moment of one layer's keys.

    Attributes:
        matrix: (inner, inner) float32 or float64.
        count: Number of tokens that it is the mean over.
        source: Where the texts came from.
        texts: Hash of the texts.
    """

    matrix: Tensor
    count: int
    source: str
    texts: str

    def describe(self) -> dict[str, Any]:
        """What a patch keeps of it, JSON-able."""
        return {
            "kind": "second moment",
            "source": self.source,
            "texts": self.texts,
            "tokens": self.count,
            "dtype": str(self.matrix.dtype).removeprefix("torch."),
        }


def cache_directory() -> Path:
    """Where statistics are kept: ``$EMEND_CACHE``, or ``~/.cache/emend``."""
    return Path(os.environ.get("EMEND_CACHE") or Path.home() / ".cache" / "emend") / "moments"


def second_moments(
    view: ModelView,
    tokenizer: Any,
    texts: Sequence[str],
    layers: Sequence[int],
    *,
    source: str = "given texts",
    max_tokens: int | None = None,
    dtype: torch.dtype = torch.float32,
    cache: Path | None = None,
    batch_size: int = 32,
) -> dict[int, Moment]:
    """Collect the second moments of several layers over all tokens of ``texts``, pads excluded.

    Args:
        view: The model.
        tokenizer: Its tokenizer.
        texts: The texts; each is cut to what the model reads.
        layers: Blocks whose keys are wanted.
        source: Name of the texts, for the record.
        max_tokens: Texts are taken in order until there are that many tokens; None takes all.
        dtype: Of the sums.
        cache: Directory to look in and to keep the result in; None keeps nothing.
        batch_size: Texts in one pass.

    Raises:
        InvalidInput: No texts.
    """
    if not texts:
        raise InvalidInput("no texts to take second moments over: give some hundred")
    names = _files(view, texts, layers, max_tokens, dtype)
    found = {layer: _read(cache / names[layer]) if cache else None for layer in layers}
    missing = [layer for layer in layers if found[layer] is None]
    if missing:
        rows = _rows(view, tokenizer, texts, max_tokens)
        sums, count = _collect(view, rows, missing, pad_id(tokenizer), dtype, batch_size)
        for layer in missing:
            moment = Moment(sums[layer] / count, count, source, _texts_hash(texts))
            found[layer] = moment
            if cache:
                _write(cache / names[layer], moment)
    return {layer: moment for layer, moment in found.items() if moment is not None}


def _rows(
    view: ModelView, tokenizer: Any, texts: Sequence[str], max_tokens: int | None
) -> list[list[int]]:
    longest = longest_text(view.model)
    rows: list[list[int]] = []
    count = 0
    for ids in prompt_tokens(tokenizer, [text for text in texts if text.strip()]):
        if max_tokens is not None and count >= max_tokens:
            break
        rows.append(ids[:longest])
        count += len(rows[-1])
    return rows


def _collect(
    view: ModelView,
    rows: Sequence[Sequence[int]],
    layers: Sequence[int],
    padding: int,
    dtype: torch.dtype,
    batch_size: int,
) -> tuple[dict[int, Tensor], int]:
    """Sums of k k^T (inner, inner) for each layer, and the number of tokens."""
    sums = {
        layer: torch.zeros(view.inner(layer), view.inner(layer), dtype=dtype) for layer in layers
    }
    chunks = list(batches([len(row) for row in rows], batch_size))
    for members in progress(chunks, "collecting second moments"):
        batch = pad([rows[n] for n in members], padding)
        real = batch.attention_mask.bool().flatten()  # (B*T,)
        with watching(view, layers) as seen:
            forward(view, batch.input_ids, batch.attention_mask, max(layers))
        for layer in layers:
            keys = seen[layer][0]
            keys = keys.reshape(-1, keys.shape[-1])[real.to(keys.device)].to(dtype)  # (tokens, m)
            sums[layer] += (keys.T @ keys).cpu()
    return sums, sum(map(len, rows))


def _texts_hash(texts: Sequence[str]) -> str:
    digest = hashlib.sha256()
    for text in texts:
        digest.update(hashlib.sha256(text.encode()).digest())
    return digest.hexdigest()[:16]


def _files(
    view: ModelView,
    texts: Sequence[str],
    layers: Sequence[int],
    max_tokens: int | None,
    dtype: torch.dtype,
) -> dict[int, str]:
    weights, corpus = model_hash(view.model), _texts_hash(texts)
    names: dict[int, str] = {}
    for layer in layers:
        parts = [weights, str(layer % view.depth), corpus, str(max_tokens), str(dtype)]
        names[layer] = hashlib.sha256("|".join(parts).encode()).hexdigest()[:32] + ".safetensors"
    return names


def _read(path: Path) -> Moment | None:
    """What is kept under a key; None where there is nothing, or nothing whole."""
    try:
        with safe_open(path, "pt") as file:
            notes = json.loads(file.metadata()["emend"])
            return Moment(file.get_tensor("moment"), **notes)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError):
        return None


def _write(path: Path, moment: Moment) -> None:
    notes = {"count": moment.count, "source": moment.source, "texts": moment.texts}
    with written_aside(path) as aside:
        save_file({"moment": moment.matrix.contiguous()}, aside, {"emend": json.dumps(notes)})
