"""A small classifier trained on labelled texts: logistic regression over a frozen encoder.

The file is one safetensors file: ``weight`` (size, labels), ``bias`` (labels), and in the header
the labels, the description of the encoder, and the accuracy on held-out texts.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from emend._brief import brief
from emend._io import whole_file
from emend._validate import check_text
from emend.errors import BrokenFile, InvalidInput, MissingFile
from emend.retrieval import Encoder, check_description, encoder_of

KIND = "text classifier"
PENALTY = 1e-3
"""Factor on half the squared norm of the weights, per standardised feature."""
FEWEST = 4
"""Texts of a label at least: one is held out of every four."""


@brief
@dataclass(frozen=True)
class TrainedClassifier:
    """Logistic regression over an encoder's vectors; a `Classifier`.

    Attributes:
        encoder: The frozen encoder.
        labels: The names of the L labels, sorted.
        weight: (size, L) float32.
        bias: (L,) float32.
        accuracy: Share of held-out texts whose most probable label is theirs.
        held_out: Number of these texts.
        trained_on: Number of texts that the weights were trained on.
        name: What reports call it.
    """

    encoder: Encoder
    labels: tuple[str, ...]
    weight: Tensor
    bias: Tensor
    accuracy: float
    held_out: int
    trained_on: int
    name: str = KIND

    def probabilities(self, texts: Sequence[str]) -> Tensor:
        """Return (N, L) float32 probabilities of N texts.

        Raises:
            InvalidInput: A text is empty.
        """
        check_texts(texts)
        if not texts:
            return torch.zeros(0, len(self.labels))
        vectors = torch.from_numpy(self.encoder.encode(texts))  # (N, size)
        return (vectors @ self.weight + self.bias).softmax(-1)

    def describe(self) -> dict[str, Any]:
        """Return what a report states of the classifier, JSON-able."""
        return {
            "name": self.name,
            "labels": list(self.labels),
            "accuracy": self.accuracy,
            "held_out": self.held_out,
            "trained_on": self.trained_on,
        }

    def save(self, path: str | Path) -> Path:
        """Write the classifier into one safetensors file, without its encoder; see `load`.

        Raises:
            InvalidInput: The file does not end in .safetensors.
            StoreFailure: It cannot be written.
        """
        if Path(path).suffix != ".safetensors":
            raise InvalidInput(f"{path} is given, expected a file that ends in .safetensors")
        header = {"kind": KIND, **self.describe(), "encoder": self.encoder.describe()}
        tensors = {"weight": self.weight.contiguous(), "bias": self.bias.contiguous()}
        with whole_file(path) as aside:
            save_file(tensors, aside, metadata={"emend": json.dumps(header)})
        return Path(path)

    @classmethod
    def load(cls, path: str | Path, model: Any = None, tokenizer: Any = None) -> TrainedClassifier:
        """Read a classifier that `save` wrote.

        Args:
            path: The file.
            model: The language model whose states it was trained on, if it was.
            tokenizer: Its tokenizer.

        Raises:
            BrokenFile: The file holds no such classifier.
            InvalidInput: It was trained on another encoder's vectors.
            MissingFile: There is no such file, or its encoder is not there.
        """
        if not Path(path).is_file():
            raise MissingFile(
                f"there is no classifier {path}, expected a .safetensors file: train one with "
                "emend.metrics.train_classifier, or give a file of labelled texts (.jsonl)"
            )
        try:
            with safe_open(path, framework="pt") as file:
                header = json.loads((file.metadata() or {})["emend"])
                if header["kind"] != KIND:
                    raise KeyError(KIND)
                weight, bias = (file.get_tensor(name) for name in ("weight", "bias"))
            about, described = dict(header), header["encoder"]
            labels = tuple(about["labels"])
            numbers = {name: about[name] for name in ("accuracy", "held_out", "trained_on")}
        except (SafetensorError, KeyError, TypeError, ValueError):
            raise BrokenFile(
                f"{path} holds no classifier of emend, expected one that "
                "TrainedClassifier.save wrote: train it again"
            ) from None
        if described.get("kind") == "states" and model is None:
            raise InvalidInput(
                f"{path} reads the states of a language model and none is given, expected the "
                "model it was trained with: pass the model and its tokenizer"
            )
        encoder = encoder_of(described, model, tokenizer)
        check_description(encoder.describe(), described)
        return cls(encoder, labels, weight, bias, **numbers, name=str(path))


def train_classifier(
    encoder: Encoder,
    texts: Sequence[str],
    labels: Sequence[str],
    *,
    penalty: float = PENALTY,
    seed: int = 0,
    name: str = KIND,
) -> TrainedClassifier:
    """Train logistic regression on labelled texts; a quarter of each label's is held out.

    The weights that are returned are those whose accuracy was measured: the held-out texts are
    not trained on afterwards.

    Args:
        encoder: The frozen encoder.
        texts: N texts.
        labels: Their labels.
        penalty: Factor on half the squared norm of the weights of standardised vectors.
        seed: Seed of the choice of held-out texts.
        name: What reports call it.

    Raises:
        InvalidInput: Texts and labels differ in number, there are not two labels, or fewer than
            four texts of one; or a text is empty.
    """
    names = _checked(texts, labels)
    vectors = torch.from_numpy(encoder.encode(texts)).double()  # (N, size)
    targets = torch.tensor([names.index(label) for label in labels])
    held = _held_out(targets, seed)
    weight, bias = fit_logistic(vectors[~held], targets[~held], len(names), penalty)
    right = (vectors[held] @ weight + bias).argmax(-1) == targets[held]
    return TrainedClassifier(
        encoder,
        names,
        weight.float(),
        bias.float(),
        accuracy=float(right.double().mean()),
        held_out=int(held.sum()),
        trained_on=int((~held).sum()),
        name=name,
    )


def fit_logistic(
    vectors: Tensor, targets: Tensor, classes: int, penalty: float
) -> tuple[Tensor, Tensor]:
    """Minimise mean cross-entropy + penalty/2 ||W||^2 over standardised vectors, by L-BFGS.

    Args:
        vectors: (N, size) float64.
        targets: (N,) int64, the class of each.
        classes: Number of classes L.
        penalty: The factor.

    Returns:
        (size, L) weights and (L,) biases for the vectors as they were given.
    """
    mean, scale = vectors.mean(0), vectors.std(0).clamp(min=1e-8)
    inputs = (vectors - mean) / scale
    weight = torch.zeros(inputs.shape[1], classes, dtype=inputs.dtype, requires_grad=True)
    bias = torch.zeros(classes, dtype=inputs.dtype, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        found = F.cross_entropy(inputs @ weight + bias, targets)
        found = found + penalty / 2 * weight.square().sum()
        found.backward()
        return found

    optimizer.step(loss)  # pyright: ignore[reportArgumentType] - its stub wants a float
    with torch.no_grad():
        scaled = weight / scale[:, None]
        return scaled.detach(), (bias - mean @ scaled).detach()


def check_texts(texts: Sequence[str]) -> None:
    """Refuse empty texts, which no classifier can read.

    Raises:
        InvalidInput: One is empty.
    """
    for text in texts:
        check_text("text to classify", text)


def _checked(texts: Sequence[str], labels: Sequence[str]) -> tuple[str, ...]:
    """Return the label names, sorted."""
    if len(texts) != len(labels):
        raise InvalidInput(f"{len(texts)} texts and {len(labels)} labels, expected one each")
    check_texts(texts)
    names = tuple(sorted(set(labels)))
    if len(names) < 2:
        raise InvalidInput(f"{len(names)} labels are given, expected two or more: add others")
    counts = {name: list(labels).count(name) for name in names}
    for name, count in counts.items():
        if count < FEWEST:
            raise InvalidInput(
                f"label {name!r} has {count} texts, expected {FEWEST} or more (a quarter is held "
                "out): add some"
            )
    return names


def _held_out(targets: Tensor, seed: int) -> Tensor:
    """Return (N,) bool: a quarter of each class, drawn by seed."""
    generator = torch.Generator().manual_seed(seed)
    held = torch.zeros(len(targets), dtype=torch.bool)
    for label in targets.unique():
        members = (targets == label).nonzero()[:, 0]
        drawn = torch.randperm(len(members), generator=generator)[: max(len(members) // 4, 1)]
        held[members[drawn]] = True
    return held
