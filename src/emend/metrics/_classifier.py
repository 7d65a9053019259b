"""Text classifiers: from a text to the probabilities of its labels.

    classifier = load_classifier("rude.safetensors", model, tokenizer)   # a trained one, saved
    classifier = load_classifier("examples/remarks.jsonl", model, tokenizer)   # train one now
    classifier = load_classifier("some-org/toxicity-model")   # any text-classification model
    classifier.probabilities(["What a lovely day."])          # (1, labels)

Whoever measures what a model writes (detoxification, persona) takes a `Classifier` and asks for
nothing else.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from emend._io import split_lines
from emend._validate import Problems, Record
from emend.errors import InvalidInput, MissingFile, UnknownName, first_line
from emend.metrics._trained_classifier import (
    TrainedClassifier,
    check_texts,
    train_classifier,
)
from emend.models.forward import batches
from emend.retrieval import named_encoder

_BATCH = 32
_FIELDS = ("text", "label")


class Classifier(Protocol):
    """Gives the probability of each label of a text.

    Attributes:
        name: What reports call it.
        labels: The names of the L labels.
    """

    @property
    def name(self) -> str:
        """What reports call it."""
        ...

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of the L labels."""
        ...

    def probabilities(self, texts: Sequence[str]) -> Tensor:
        """Return (N, L) float32 probabilities of N texts, on the CPU; each row sums to 1.

        Raises:
            InvalidInput: A text is empty.
        """
        ...


class PretrainedClassifier:
    """Any text-classification model of transformers.

    A model with several labels gives their softmax. One with a single output gives its sigmoid as
    the second of two labels, "not NAME" and "NAME".

    Args:
        name: A folder, or a name on the hub.

    Raises:
        MissingFile: There is no such model, or its files cannot be read.
    """

    def __init__(self, name: str) -> None:
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        self.name = name
        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(name)
            self._model: Any = AutoModelForSequenceClassification.from_pretrained(name).eval()
        except (OSError, ValueError) as error:
            raise MissingFile(
                f"the classifier {name} cannot be loaded ({first_line(error)}): give a file of "
                "labelled texts (.jsonl), a saved classifier (.safetensors), or a "
                "text-classification model of transformers that is there"
            ) from None
        named = self._model.config.id2label
        found: list[str] = [str(named[number]) for number in sorted(named)]
        self.labels = tuple(found if len(found) > 1 else [f"not {found[0]}", found[0]])

    def probabilities(self, texts: Sequence[str]) -> Tensor:
        """See `Classifier.probabilities`; a text longer than the model reads is cut."""
        check_texts(texts)
        found = torch.zeros(len(texts), len(self.labels))
        longest = min(int(self._tokenizer.model_max_length), 512)
        rows = self._tokenizer(list(texts), truncation=True, max_length=longest)["input_ids"]
        # Texts of one length together need no padding, and a model without a padding token none.
        most = 1 if self._model.config.pad_token_id is None else _BATCH
        for members in batches([len(row) for row in rows], most, spread=0):
            with torch.no_grad():
                output = self._model(input_ids=torch.tensor([rows[n] for n in members]))
            logits: Tensor = output.logits.float()  # (B, L), or (B, 1)
            if logits.shape[1] == 1:
                logits = torch.cat([torch.zeros_like(logits), logits], dim=1)
            found[members] = logits.softmax(-1)
        return found


def load_classifier(
    name: str | Path, model: Any = None, tokenizer: Any = None, *, encoder: str = "states"
) -> Classifier:
    """Return a classifier by name.

    Args:
        name: A saved `TrainedClassifier` (.safetensors); a file of labelled texts (.jsonl, one
            object with `text` and `label` a line), on which one is trained; otherwise a
            text-classification model of transformers, by folder or name on the hub.
        model: The language model, whose states are read where the encoder is "states".
        tokenizer: Its tokenizer.
        encoder: What a file of labelled texts is encoded by; see `retrieval.named_encoder`.

    Raises:
        BrokenFile: The file cannot be read.
        InvalidInput: The encoder is another one than the classifier was trained on, or needs a
            model.
        MissingFile: There is no such classifier.
    """
    path = Path(name)
    if path.suffix == ".safetensors":
        return TrainedClassifier.load(path, model, tokenizer)
    if path.suffix == ".jsonl":
        texts, labels = read_labelled(path)
        return train_classifier(
            named_encoder(encoder, model, tokenizer), texts, labels, name=str(path)
        )
    return PretrainedClassifier(str(name))


def read_labelled(path: Path) -> tuple[list[str], list[str]]:
    """Read texts with their labels from JSON lines with `text` and `label`.

    Raises:
        BrokenFile: A line is no such object; every one is named.
        MissingFile: There is no such file.
    """
    if not path.is_file():
        raise MissingFile(
            f"there is no file {path}, expected labelled texts (one JSON object with text and "
            "label a line): check the path given for the classifier"
        )
    problems, texts, labels = Problems(str(path)), list[str](), list[str]()
    for number, line in enumerate(split_lines(path.read_text(encoding="utf-8")), 1):
        try:
            value = json.loads(line)
        except ValueError:
            value = line
        record = Record.of(value, problems, _FIELDS, line=number)
        text, label = (record.text(name) if record else None for name in _FIELDS)
        if text is not None and label is not None:
            texts.append(text)
            labels.append(label)
    problems.check()
    return texts, labels


def label_index(classifier: Classifier, label: str) -> int:
    """Return the number of a label.

    Raises:
        UnknownName: The classifier has no such label.
    """
    if label not in classifier.labels:
        raise UnknownName("label", label, classifier.labels)
    return classifier.labels.index(label)


def label_shares(
    classifier: Classifier, texts: Sequence[str], label: str, *, empty: float = 0.5
) -> list[float]:
    """Return for each text 1.0 where a label is the most probable one, and 0.0 where not.

    Args:
        classifier: The classifier.
        texts: N texts.
        label: The label.
        empty: The value of an empty text, which shows neither.

    Raises:
        InvalidInput: `empty` is no share.
        UnknownName: The classifier has no such label.
    """
    if not 0 <= empty <= 1:
        raise InvalidInput(f"empty is {empty}, expected a share from 0 to 1")
    number = label_index(classifier, label)
    written = [text for text in texts if text.strip()]
    chosen = iter((classifier.probabilities(written).argmax(-1) == number).tolist())
    return [float(next(chosen)) if text.strip() else empty for text in texts]
