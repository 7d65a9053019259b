"""Encoders turn texts into vectors: a language model's states, or a sentence-transformers model.

The description of an encoder is saved with vectors that it made, so that vectors of another
encoder are never compared with them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from emend import models
from emend.errors import MissingExtra, MissingFile, first_line
from emend.models.forward import batches, evaluating, head_at, longest_text
from emend.models.hooks import hooked
from emend.models.placing import device_of
from emend.models.positions import Encoded, pad, pad_id, prompt_tokens
from emend.models.start import front_ids
from emend.models.wrapping import find_module

STATES, SENTENCES = "states", "sentences"
BATCH = 32
"""Texts in one forward pass."""
PROBE = "The quick brown fox jumps over the lazy dog."
PROBED = 16
"""Numbers of the vector of `PROBE` that a description holds."""


class Encoder(Protocol):
    """Turns texts into vectors."""

    def describe(self) -> dict[str, Any]:
        """Return what identifies the encoder, JSON-able; `encoder_of` makes it again from this."""
        ...

    def encode(self, texts: Sequence[str]) -> Any:
        """Return (N, size) float32 vectors of N texts, a numpy array."""
        ...


class _ModelEncoder(ABC):
    """An encoder that runs the unedited language model.

    Args:
        model: A causal language model; what is attached to it has no effect here.
        tokenizer: Its tokenizer.
        batch_size: Texts in one forward pass.
    """

    def __init__(self, model: Any, tokenizer: Any, batch_size: int = BATCH) -> None:
        self.model, self.tokenizer, self.batch_size = model, tokenizer, batch_size

    def encode(self, texts: Sequence[str]) -> Any:
        """See `Encoder.encode`."""
        if not texts:
            return np.zeros((0, 0), np.float32)
        models.ensure_start(self.model, self.tokenizer)
        rows, front = prompt_tokens(self.tokenizer, list(texts)), len(front_ids(self.tokenizer))
        longest = longest_text(self.model) or front + max(map(len, rows))
        return self._encoded(rows, front, longest - front)

    @abstractmethod
    def _encoded(self, rows: list[list[int]], front: int, room: int) -> Any:
        """Return the vectors of rows that begin with ``front`` start tokens.

        Of the other tokens of a row ``room`` fit into one forward pass.
        """

    @abstractmethod
    def _batch(self, batch: Encoded, front: int) -> Tensor:
        """Return (B, size) of one padded batch."""

    def _run(self, rows: Sequence[Sequence[int]], front: int) -> Any:
        """Return (N, size) of rows that fit into one pass each."""
        found: list[Any] = [None] * len(rows)
        place = device_of(self.model.get_input_embeddings())
        with torch.no_grad(), models.base(self.model), evaluating(self.model):
            for members in batches([len(row) for row in rows], self.batch_size):
                batch = pad([rows[n] for n in members], pad_id(self.tokenizer)).to(place)
                vectors = self._batch(batch, front).float().cpu().numpy()
                for number, vector in zip(members, vectors, strict=True):
                    found[number] = vector
        return np.stack(found)


class StateEncoder(_ModelEncoder):
    """Hidden states of the model's middle block, averaged over a text's tokens.

    A text longer than the model reads is cut into windows that do not overlap, each after the
    start token; all of its tokens count alike.
    """

    def describe(self) -> dict[str, Any]:
        """See `Encoder.describe`."""
        return {"kind": STATES, **probed(self)}

    def _encoded(self, rows: list[list[int]], front: int, room: int) -> Any:
        cut = [range(front, max(len(row), front + 1), room) for row in rows]
        windows = [
            [*row[:front], *row[at : at + room]]
            for row, each in zip(rows, cut, strict=True)
            for at in each
        ]
        sums = self._run(windows, front)  # (windows, hidden_size)
        whole = np.zeros((len(rows), sums.shape[1]), np.float32)
        np.add.at(whole, [number for number, each in enumerate(cut) for _ in each], sums)
        return normalized(whole)

    def _batch(self, batch: Encoded, front: int) -> Tensor:
        output = self.model.base_model(
            input_ids=batch.input_ids,
            attention_mask=batch.attention_mask,
            use_cache=False,
            output_hidden_states=True,
        )
        states = output.hidden_states[len(output.hidden_states) // 2].float()  # (B, T, hidden_size)
        mask = batch.attention_mask[..., None].to(states)
        # A start token's state would outweigh all others.
        mask[:, :front] = torch.where(mask.sum(1, keepdim=True) > front, 0.0, mask[:, :front])
        return (states * mask).sum(1)


class KeyEncoder(_ModelEncoder):
    """Inputs of some modules at a text's last token, each divided by its length.

    Of a text longer than the model reads, the last tokens are read, after its start token.

    Args:
        model: A causal language model; what is attached to it has no effect here.
        tokenizer: Its tokenizer.
        modules: Full names of the modules.
    """

    def __init__(self, model: Any, tokenizer: Any, modules: Sequence[str]) -> None:
        super().__init__(model, tokenizer)
        self.modules = tuple(modules)

    def describe(self) -> dict[str, Any]:
        """See `Encoder.describe`; a model is identified by its weights, and not here."""
        return {"kind": STATES, "modules": list(self.modules)}

    def _encoded(self, rows: list[list[int]], front: int, room: int) -> Any:
        return self._run([[*row[:front], *row[front:][-room:]] for row in rows], front)

    def _batch(self, batch: Encoded, front: int) -> Tensor:
        ends = batch.attention_mask.sum(1) - 1
        index = torch.arange(len(ends))
        seen: dict[str, Tensor] = {}

        def watch(name: str) -> Any:
            def look(_module: nn.Module, args: tuple[Any, ...]) -> None:
                given = args[0].reshape(len(ends), -1, args[0].shape[-1])
                last = given[index.to(given.device), ends.to(given.device)].float().cpu()
                seen[name] = nn.functional.normalize(last, dim=-1)

            return look

        with ExitStack() as stack:
            for name in self.modules:
                module = find_module(self.model, name)
                stack.enter_context(hooked(module, watch(name), before=True))
            stack.enter_context(head_at(self.model, index[:1], ends[:1]))
            self.model(
                input_ids=batch.input_ids, attention_mask=batch.attention_mask, use_cache=False
            )
        return torch.cat([seen[name] for name in self.modules], dim=-1)


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

    def describe(self) -> dict[str, Any]:
        """See `Encoder.describe`."""
        return {"kind": SENTENCES, "name": self.name, **probed(self)}

    def encode(self, texts: Sequence[str]) -> Any:
        """See `Encoder.encode`."""
        found = self._model.encode(list(texts), show_progress_bar=False)
        return normalized(np.asarray(found, np.float32))


def normalized(vectors: Any) -> Any:
    """Divide the rows of (N, size) by their lengths; a row of zeros stays."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / np.maximum(lengths, 1e-12)).astype(np.float32)


def probed(encoder: Encoder) -> dict[str, Any]:
    """Return the size of an encoder's vectors, and some numbers that distinguish encoders."""
    vector = encoder.encode([PROBE])[0]
    probe = [round(float(value), 4) for value in vector[:PROBED]]
    return {"size": len(vector), "probe": probe}
