"""What turns texts into vectors: the model's own states, or a sentence-transformers model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch

from emend import models
from emend.errors import InvalidInput, MissingExtra, MissingFile, first_line
from emend.models.forward import evaluating, longest_text
from emend.models.placing import device_of
from emend.models.positions import pad, pad_id, prompt_tokens
from emend.models.start import front_ids

_PROBE = "The quick brown fox jumps over the lazy dog."
_PROBED = 16


class Encoder(Protocol):
    """Turns texts into vectors.

    Attributes:
        name: What it is called in settings.
    """

    name: str

    def encode(self, texts: Sequence[str]) -> Any:
        """(N, width) float32, each row of length 1."""
        ...


def fingerprint(encoder: Encoder) -> dict[str, Any]:
    """What is kept of an encoder to know it again: its name, width, and some numbers it gives.

    Returns:
        JSON-able.
    """
    vector = encoder.encode([_PROBE])[0]
    probe = [round(float(value), 4) for value in vector[:_PROBED]]
    return {"name": encoder.name, "width": len(vector), "probe": probe}


def check_fingerprint(found: dict[str, Any], kept: dict[str, Any]) -> None:
    """Refuse an encoder other than the one that a memory was made with.

    Raises:
        InvalidInput: Name, width or vectors differ.
    """
    same = found["name"] == kept.get("name") and found["width"] == kept.get("width")
    if same and np.allclose(found["probe"], kept.get("probe", []), atol=5e-3):
        return
    differ = "its vectors differ" if same else f"found {found['name']} ({found['width']} wide)"
    raise InvalidInput(
        f"the memory was made with encoder {kept.get('name')} ({kept.get('width')} wide), but "
        f"{differ}: use that encoder, or make the patch again"
    )


class StateEncoder:
    """The language model's own states, half way up, averaged over a text's tokens.

    A text longer than the model reads is cut into windows that do not overlap, each behind the
    start token; all of its tokens count alike.

    Args:
        model: A causal language model; what is attached to it has no effect here.
        tokenizer: Its tokenizer.
        batch_size: Texts in one forward pass.
    """

    name = "states"

    def __init__(self, model: Any, tokenizer: Any, batch_size: int = 32) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.batch_size = batch_size

    def encode(self, texts: Sequence[str]) -> Any:
        """See `Encoder.encode`."""
        models.ensure_start(self.model, self.tokenizer)
        rows = prompt_tokens(self.tokenizer, list(texts))
        if not rows:
            return np.zeros((0, 0), np.float32)
        front = len(front_ids(self.tokenizer))
        size = (longest_text(self.model) or front + max(map(len, rows))) - front
        cut = [range(front, max(len(row), front + 1), size) for row in rows]
        windows = [
            [*row[:front], *row[at : at + size]]
            for row, each in zip(rows, cut, strict=True)
            for at in each
        ]
        owners = [number for number, each in enumerate(cut) for _ in each]
        starts = range(0, len(windows), self.batch_size)
        with torch.no_grad(), models.base(self.model), evaluating(self.model):
            found = [self._summed(windows[start : start + self.batch_size]) for start in starts]
        sums = np.concatenate(found)  # (windows, width)
        whole = np.zeros((len(rows), sums.shape[1]), np.float32)
        np.add.at(whole, owners, sums)
        return normalized(whole)

    def _summed(self, rows: list[list[int]]) -> Any:
        """(B, width), the states of each row's tokens added up."""
        batch = pad(rows, pad_id(self.tokenizer)).to(device_of(self.model.get_input_embeddings()))
        output = self.model.base_model(
            input_ids=batch.input_ids,
            attention_mask=batch.attention_mask,
            use_cache=False,
            output_hidden_states=True,
        )
        states = output.hidden_states[len(output.hidden_states) // 2].float()  # (B, T, width)
        mask = batch.attention_mask[..., None].to(states)
        front = len(front_ids(self.tokenizer))  # whose states would outweigh all others
        mask[:, :front] = torch.where(mask.sum(1, keepdim=True) > front, 0.0, mask[:, :front])
        return (states * mask).sum(1).cpu().numpy()


class SentenceEncoder:
    """A sentence-transformers model.

    Args:
        name: A directory, or a name on the hub such as "sentence-transformers/all-MiniLM-L6-v2".

    Raises:
        MissingExtra: sentence-transformers is not installed.
        MissingFile: There is no such model, or it cannot be fetched.
    """

    def __init__(self, name: str) -> None:
        try:
            from sentence_transformers import SentenceTransformer  # type: ignore[import-not-found]
        except ImportError as error:
            raise MissingExtra.of(
                "sentence-transformers", "retrieval", f"encode texts by {name}"
            ) from error
        self.name = name
        try:
            self._model: Any = SentenceTransformer(name)
        except (OSError, ValueError) as error:
            raise MissingFile(
                f"the encoder {name} cannot be loaded ({first_line(error)}): give bm25, "
                "states, or a sentence-transformers model that is there"
            ) from None

    def encode(self, texts: Sequence[str]) -> Any:
        """See `Encoder.encode`."""
        return normalized(
            np.asarray(self._model.encode(list(texts), show_progress_bar=False), np.float32)
        )


def normalized(vectors: Any) -> Any:
    """Rows of (N, width) divided by their lengths; a row of zeros stays."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / np.maximum(lengths, 1e-12)).astype(np.float32)
