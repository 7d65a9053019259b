"""Find the subject of a sentence that a model completes.

Candidates are names: words that begin with a capital or a digit, with small words between them
("the University of Oxford"). Where a sentence has none, they are its groups of words between
function words. Of several the subject is the one that the model's answer depends on: the one at
which noise in the embeddings lowers the answer's probability most (the total effect of causal
tracing). Words of the relation count, too ("the chemical symbol for gold is"); since a subject
mostly comes after them, of candidates that count about as much the last is taken.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from emend.locate import subject_effect
from emend.models import base

DRAWS = 4
"""How often noise is drawn for each candidate."""

NEARLY = 0.9
"""Candidates whose effect is at least this part of the largest count as much."""

_SMALL = frozenset("of de da di du del della der den van von la le the and for in on y e &".split())
"""Words that may stand within a name."""

_ARTICLES = frozenset({"the", "a", "an"})

_FUNCTION = frozenset(
    "a an the this that these those is are was were be been being has have had do does did will "
    "would can could may might must shall should "  # not prose
    "of in on at by to from with for as and or but not no its his her their our my your it he "
    "she they we you i who whom whose which what when "
    "where why how there here than then so if into about over under after before between during "
    "called named located known said born according".split()
)
"""Words that are no part of a subject by themselves."""

Span = tuple[int, int]


def find_subject(model: nn.Module, tokenizer: Any, text: str) -> str | None:
    """Find the subject of a sentence, as the unedited model reads it.

    Args:
        model: A causal language model; patches do not act here.
        tokenizer: Its tokenizer.
        text: The sentence up to what the model is to add.

    Returns:
        The subject as written in the sentence; None where nothing can be one.
    """
    found = subject_candidates(text)
    if len(found) < 2:
        return text[slice(*found[0])] if found else None
    effects: list[float] = []
    with base(model):
        for start, end in found:
            prompt = f"{text[:start]}{{}}{text[end:]}"
            clean, noisy = subject_effect(model, tokenizer, prompt, text[start:end], draws=DRAWS)
            effects.append(max(clean - noisy, 0.0))
    nearly = [
        span for span, one in zip(found, effects, strict=True) if one >= NEARLY * max(effects)
    ]
    return text[slice(*nearly[-1])]


def subject_candidates(text: str) -> list[Span]:
    """Give the (start, end) characters of what may be the subject of a sentence, in order."""
    import regex

    words = [match.span() for match in regex.finditer(r"[\p{L}\p{M}\p{N}&.'’\-]+", text)]
    words = [(start, _end(text, start, end)) for start, end in words]
    words = [(start, end) for start, end in words if start < end]
    names = _runs(text, words, _is_name, inner=_SMALL)
    names = [span for span in names if not _is_function(text[slice(*span)])]
    found = names or _runs(text, words, lambda word: not _is_function(word))
    return [span for span in found if text[slice(*span)] != text.strip()]


def _end(text: str, start: int, end: int) -> int:
    """Leave out the full stop, apostrophe or possessive that a word ends with ("Curie's")."""
    word = text[start:end]
    for ending in ("'s", "’s"):
        word = word.removesuffix(ending)
    return start + len(word.rstrip("-'’" if word.count(".") > 1 else ".-'’"))


def _is_name(word: str) -> bool:
    # "In Europe" at the beginning of a sentence is the name "Europe"; "The Louvre" is one whole.
    if word.casefold() in _FUNCTION and word.casefold() not in _ARTICLES:
        return False
    return word[0].isupper() or word[0].isdigit()


def _is_function(word: str) -> bool:
    return word.casefold() in _FUNCTION


def _runs(
    text: str, words: list[Span], fits: Any, inner: frozenset[str] = frozenset()
) -> list[Span]:
    """Join neighbouring words that fit, with words of `inner` between two of them."""
    runs: list[Span] = []
    start: int | None = None
    last = before = 0
    for begin, end in words:
        word = text[begin:end]
        joined = not text[before:begin].strip()  # nothing but spaces in between
        if start is not None and not (joined and (fits(word) or word in inner)):
            runs.append((start, last))
            start = None
        if fits(word):
            start = begin if start is None else start
            last = end
        before = end
    return runs if start is None else [*runs, (start, last)]
