"""Metrics by name, for the command line: perplexity of a text, accuracy on edits and their probes.

perplexity=FILE        of a .txt file (its paragraphs), or of JSON lines with a field "text";
lower is better
accuracy=FILE          the share of the file's edits (or a published form, see `emend datasets`)
whose target the model generates
generalization=FILE    or another measure of `emend.evaluate` that is a share, over the probes
of the edits
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from emend import _identity
from emend._io import split_lines
from emend._validate import choice_fault, refuse
from emend.arithmetic.tuning import Measure
from emend.datasets import read_edits
from emend.edits import Edit
from emend.errors import BrokenFile, InvalidInput, MissingFile
from emend.metrics import evaluate, registry
from emend.models import perplexity

PERPLEXITY, ACCURACY = "perplexity", "accuracy"


def measure(spec: str, tokenizer: Any, *, limit: int | None = None) -> Measure:
    """Make a metric from "NAME=FILE".

    Args:
        spec: A name as above, an equals sign, and a file.
        tokenizer: The model's.
        limit: Take at most this many texts or edits.

    Raises:
        InvalidInput: There is no such metric, or it has no file.
        MissingFile: There is no such file.
        BrokenFile: The file cannot be read.
    """
    name, equals, file = spec.partition("=")
    if not equals or not file:
        raise InvalidInput(f"{spec!r} names no file, expected NAME=FILE, such as perplexity=a.txt")
    refuse("the metric", choice_fault(name, (PERPLEXITY, ACCURACY, *_shares())))
    path = Path(file)
    if not path.is_file():
        raise MissingFile(f"there is no file {path}: check the path of {name}")
    identity = f"{_identity.file_digest(path)} {limit}"
    if name == PERPLEXITY:
        texts = _texts(path)[:limit]
        return Measure(spec, lambda model: perplexity(model, tokenizer, texts), True, identity)
    edits = read_edits(path)[:limit]
    asked = "reliability" if name == ACCURACY else name
    return Measure(spec, lambda model: _share(model, tokenizer, edits, asked), False, identity)


def _shares() -> list[str]:
    """Return the names of the measures that are shares."""
    return [name for name in registry().names() if registry().get(name).unit == "share"]


def _share(model: Any, tokenizer: Any, edits: Sequence[Edit], name: str) -> float:
    found = evaluate(model, tokenizer, edits, metrics=[name]).summary[name]["after"]
    if found is None:
        raise InvalidInput(
            f"no edit has a probe that {name} asks, expected some: take accuracy, or add probes"
        )
    return float(found)


def _texts(path: Path) -> list[str]:
    """Read the texts of a file: paragraphs, or the field "text" of each line of JSON."""
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix.lower() == ".jsonl":
            lines = [line for line in split_lines(text) if line.strip()]
            return [str(json.loads(line)["text"]) for line in lines]
    except (ValueError, KeyError, TypeError):
        raise BrokenFile(
            f"{path} cannot be read, expected text in UTF-8, or lines of JSON with a field text: "
            "check the file"
        ) from None
    return [part.strip() for part in text.replace("\r\n", "\n").split("\n\n") if part.strip()]
