"""Personality types as sums of four styles: one vector for each axis of the MBTI.

Cui et al. 2023, "Machine Mindset: An MBTI Exploration of Large Language Models", arXiv 2312.12999,
fine-tunes a model for each type on the texts of its four poles. Here the texts of each pole give a
vector of their own, a LoRA adapter, and a type is the sum of four (task arithmetic, Ilharco et al.
2023, arXiv 2212.04089):

    W' = W + lambda (tau_1 + tau_2 + tau_3 + tau_4),    tau_i = (alpha / r) B_i A_i

so that eight vectors serve for all sixteen types. The texts are rows with an instruction and an
answer in the style, in one file a pole, as published: its name ends with that of the pole
(`en_energy_introversion.json`, `introversion.json`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any

from emend import _identity, methods
from emend._io import cache_directory
from emend.datasets import QUESTION_LAYOUT, read_edits
from emend.edits import Edit
from emend.errors import BrokenFile, EmendError, InvalidInput, MissingFile, StoreFailure
from emend.models import ModelView, model_fingerprint, tokens_fingerprint
from emend.patches import WeightPatch, load_patch
from emend.persona.editing import asking_for

AXES = (
    {"E": "extraversion", "I": "introversion"},
    {"S": "sensing", "N": "intuition"},
    {"T": "thinking", "F": "feeling"},
    {"J": "judging", "P": "perceiving"},
)
"""The four axes, each with the letters and names of its two poles."""

SUFFIXES = (".json", ".jsonl")

TRAINING: Mapping[str, Any] = {"original": True, "rank": 8, "steps": 6, "learning_rate": 5e-3}
"""Settings of `lora`: queries and values, nothing preserved, since a style is to be seen in every
answer; few steps, since twelve texts are soon learnt by heart."""

DEPTH = 2 / 3
"""Part of the depth from which on layers are adapted by default: a style is a manner of wording,
and the layers below need to be run once only."""


MEAN = 0.25
"""Factor on the sum of the four vectors by default, which makes it their mean: with the whole sum
SmolLM2 repeats a few words (docs/personas.md)."""


def poles_of(kind: str) -> tuple[str, str, str, str]:
    """Return the names of the four poles of a type.

    Args:
        kind: Four letters such as "INTJ", in any case.

    Raises:
        InvalidInput: It is no such type.
    """
    letters = kind.strip().upper()
    if len(letters) != len(AXES) or any(
        letter not in axis for letter, axis in zip(letters, AXES, strict=False)
    ):
        raise InvalidInput(
            f"the type is {kind!r}, expected four letters, one of each pair "
            f"{', '.join('/'.join(axis) for axis in AXES)}: write it as INTJ"
        )
    first, second, third, fourth = (
        axis[letter] for letter, axis in zip(letters, AXES, strict=True)
    )
    return first, second, third, fourth


def find_texts(directory: str | Path, pole: str) -> Path:
    """Find the file with the texts of a pole.

    Raises:
        MissingFile: There is no such directory, or none of its files is of this pole.
        InvalidInput: Several are.
    """
    place = Path(directory)
    if not place.is_dir():
        raise MissingFile(
            f"there is no directory {place}, expected one with a file of texts for each pole: "
            "check the path given for the data"
        )
    found = sorted(
        one
        for one in place.iterdir()
        if one.suffix in SUFFIXES and one.stem.casefold().endswith(pole)
    )
    if not found:
        raise MissingFile(
            f"{place} has no file for {pole}, expected one whose name ends with it, such as "
            f"{pole}.json: add it"
        )
    if len(found) > 1:
        names = ", ".join(one.name for one in found)
        raise InvalidInput(f"{place} has {names} for {pole}, expected one: move the others away")
    return found[0]


def mbti_patch(
    model: Any,
    tokenizer: Any,
    kind: str,
    directory: str | Path,
    *,
    scale: float = MEAN,
    report: Callable[[str], None] | None = None,
    **settings: Any,
) -> WeightPatch:
    """Make the patch of a personality type: the scaled sum of the vectors of its four poles.

    Args:
        model: A Hugging Face causal language model; it is not changed.
        tokenizer: Its tokenizer.
        kind: The type, such as "INTJ".
        directory: Texts of the poles; see `find_texts`.
        scale: Factor on the sum; by default that of the mean.
        report: Called with the name of each pole before its vector is trained or read.
        settings: Settings of `lora` that differ from `TRAINING`.

    Raises:
        InvalidInput: The type has no four letters of the four axes.
        MissingFile: A pole has no texts.
        BrokenFile: Its texts cannot be read.
        MissingExtra: PEFT is not installed.
    """
    poles = poles_of(kind)
    layout = asking_for(tokenizer).layout
    texts = {pole: read_style(find_texts(directory, pole), layout) for pole in poles}
    vectors: list[WeightPatch] = []
    for pole in poles:
        if report is not None:
            report(pole)
        vectors.append(style_vector(model, tokenizer, texts[pole], **settings))
    return reduce(add, vectors) * scale


def read_style(path: Path, layout: str = QUESTION_LAYOUT) -> list[Edit]:
    """Read the texts of a pole.

    Args:
        path: The file.
        layout: How an instruction is put to the model, with "{question}".

    Raises:
        BrokenFile: A row cannot be read; every problem is named.
    """
    before, after = QUESTION_LAYOUT.split("{question}")
    return [
        replace(
            edit,
            prompt=layout.replace("{question}", edit.prompt[len(before) : -len(after)]),
            id="",
        )
        for edit in read_edits(path, format="alpaca")
    ]


def style_vector(model: Any, tokenizer: Any, texts: list[Edit], **settings: Any) -> WeightPatch:
    """Train a LoRA adapter on texts of one style, or read it from the cache.

    Args:
        model: The model.
        tokenizer: Its tokenizer.
        texts: Instructions with answers; `read_style` reads them.
        settings: Settings of `lora` that differ from `TRAINING`.

    Returns:
        The vector. It holds no edits, so that vectors of different styles add though their
        instructions are the same.
    """
    method = methods.find("lora")
    layers = ModelView(model).num_layers
    chosen: dict[str, Any] = {"layers": tuple(range(round(DEPTH * layers), layers)), **TRAINING}
    chosen |= settings
    key = _identity.key(
        "style vector",
        model=model_fingerprint(model),
        tokenizer=tokens_fingerprint(model, tokenizer),
        method=(method.name, method.version),
        settings=chosen,
        texts=[(one.text, one.target) for one in texts],
    )
    place = cache_directory("styles") / key
    with suppress(EmendError):
        cached = load_patch(place)
        if isinstance(cached, WeightPatch):
            return cached
    made = method.edit(model, tokenizer, texts, **chosen)
    assert isinstance(made, WeightPatch)
    vector = replace(made, edits=(), outcomes=())
    with suppress(StoreFailure, InvalidInput, BrokenFile):  # the cache only saves time
        vector.save_pretrained(place)
    return vector
