"""Which texts key statistics are taken over: one type, `Source`, whatever was given.

What is given is told apart by its type, once, by `as_source`: a `str` is the name of a file or a
data set, a `Path` is a file, and a list or tuple of `str` holds the texts themselves.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, cast

from emend._settings import Reads
from emend.editing._corpus import (
    LAB_TEXTS,
    JsonLines,
    LabCorpus,
    Several,
    Source,
    TextFile,
    Texts,
)
from emend.editing._hub import HubDataset
from emend.editing._named import file_source, source_named
from emend.editing._samples import OwnSamples, own_samples
from emend.errors import InvalidInput
from emend.models import ModelView

Given = str | os.PathLike[str] | Source | Sequence[str] | Sequence[os.PathLike[str] | Source]
"""What `as_source` understands."""

_WORDS = "a file or data set by its name, files as Paths, or a list of texts"


def as_source(texts: Given) -> Source:
    """Make one source of what is given, by its type.

    Args:
        texts: A ``str`` is a name (see `source_named`) and a ``Path`` a file. A list, tuple or
            other iterable of ``str`` holds the texts themselves, whichever it is; one of ``Path``
            or `Source` is read one after another. A `Source` is returned as it is.

    Raises:
        MissingFile: There is no such file.
        InvalidInput: It is none of these, or texts and files are mixed.
    """
    if isinstance(texts, Source):
        return texts
    if isinstance(texts, str):
        return source_named(texts)
    if isinstance(texts, os.PathLike):
        return file_source(texts)
    given: Any = texts
    if not isinstance(given, Iterable) or isinstance(given, (bytes, dict)):
        kind = type(cast(Any, given)).__name__
        raise InvalidInput(f"texts are a {kind}, expected {_WORDS}: give such")
    parts = tuple(cast("Iterable[Any]", given))
    if all(isinstance(part, str) for part in parts):
        return Texts(parts)
    strange = next((p for p in parts if not isinstance(p, (os.PathLike, Source))), None)
    if strange is not None:
        raise InvalidInput(
            f"texts hold a {type(strange).__name__} among files, expected texts alone or files "
            "alone: give texts as a list of str, and files as a list of Path"
        )
    return joined(as_source(part) for part in parts)


def sources_named(names: Sequence[str]) -> Source:
    """Make one source of several names, read one after another; see `source_named`.

    Raises:
        MissingFile: There is no such file.
        InvalidInput: No name, or one that cannot be understood.
    """
    return joined(source_named(name) for name in names)


def joined(sources: Iterable[Source]) -> Source:
    """Read several sources one after another; one stays as it is."""
    parts = tuple(sources)
    return parts[0] if len(parts) == 1 else Several(parts)


def texts_for(view: ModelView, tokenizer: Any, texts: Given | None) -> Source:
    """Return the texts to take: those given, the lab's for its models, or the model's own samples.

    Args:
        view: The model.
        tokenizer: Its tokenizer.
        texts: See `as_source`. None takes the lab's corpus for a model of the lab, and samples of
            its own for any other; no text at all (an empty list) takes samples for every model.

    Raises:
        MissingFile: There is no such file.
        InvalidInput: It cannot be understood.
    """
    if texts is None and is_lab_model(view.model):
        return LabCorpus()
    source = None if texts is None else as_source(texts)
    if source is None or (isinstance(source, Texts) and not source.texts):
        return own_samples(view, tokenizer)
    return source


def is_lab_model(model: Any) -> bool:
    """Return whether a model was trained on the lab's corpus: its ``config.json`` says so."""
    own = getattr(getattr(model, "config", None), "emend", None)
    return isinstance(own, dict) and "lab" in own


TextsSetting = Annotated[Source, Reads(_WORDS, given=as_source, named=sources_named)]
"""The setting `texts` of a method: what is given becomes a `Source` where it is checked."""


__all__ = [
    "LAB_TEXTS",
    "Given",
    "HubDataset",
    "JsonLines",
    "LabCorpus",
    "OwnSamples",
    "Several",
    "Source",
    "TextFile",
    "Texts",
    "TextsSetting",
    "as_source",
    "is_lab_model",
    "own_samples",
    "source_named",
    "sources_named",
    "texts_for",
]
