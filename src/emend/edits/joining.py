"""Where a space goes between a prompt and the target that follows it.

One decision for training rows, scoring, evaluation, generation and in-context texts, so that an
edit is measured on exactly the text that it was made with. It follows from what stands before,
from the target and from the script; scripts without spaces between words are found by Unicode's
line breaking classes (UAX #14), not by name.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any

_IDEOGRAPHIC = r"[[\p{L}\p{M}\p{Nl}]&&[\p{lb=ID}\p{lb=CJ}\p{lb=NS}]]"

UNSPACED = r"[[\p{L}\p{M}\p{Nl}]&&[\p{lb=ID}\p{lb=CJ}\p{lb=NS}\p{lb=SA}\p{Script=Tibetan}]]"
"""A letter of a script without spaces between words, as a pattern of `regex` (version 1 syntax):
Chinese, Japanese, Yi, Thai, Lao, Khmer, Burmese, Tibetan and others, not Korean."""

WIDE_PUNCTUATION = r"[\p{P}&&[\p{ea=W}\p{ea=F}]]"
"""Punctuation that takes a full cell and so brings its own space: 。，：「」（）."""

# Prompts after which nothing is put before any target.
_AFTER = (
    r"\p{Ps}",
    WIDE_PUNCTUATION,
    _IDEOGRAPHIC,
    r"\p{Script=Tibetan}",
    # An opening quotation mark: after a space or a bracket, or the odd one of its line.
    r"(?:^|[\s\p{Ps}])[\p{Quotation_Mark}`]+",
    r'^(?:[^"]*"[^"]*")*[^"]*(?<!\p{N})"',
    r"(?:^|\s)\*\*",
    "[¿¡]",
    # Within paths, addresses and names: "/usr/", "bob@", "https://www.", "snake_".
    r"[/\\@]",
    r"(?:://|\S@)\S*[.:?=&#%]",
    r"(?<!\S)www\.(?:\S*[.:?=&#%])?",
    r"(?<=[^\s_])_",
    # Signs before a number or a name: "$", "US$", "#", "~"; not those after one: "100 €", "C#".
    r"(?<!\p{N}\s?)\p{Sc}",
    r"(?<![\p{L}\p{N}])[#~]",
    # "Anglo-", "2024-", "2+2=", "AT&"; not a dash between spaces.
    r"(?<=[^\s\p{Pd}])\p{Pd}",
    r"(?<=\S)[=&]",
)
# Targets before which nothing is put: what closes or ends something.
_BEFORE = (
    r"\s",
    r"\p{Pe}",
    WIDE_PUNCTUATION,
    r"\p{Terminal_Punctuation}(?![\p{L}\p{N}])",
    r"['’]s\b",
)
_NUMBER_BEGINS = r"(?<![^\s\p{Ps}\p{Sc}\p{Pd}])"
# Prompts and targets between which nothing is put.
_BETWEEN = (
    # Without spaces between words, where the text before the target is written so.
    (UNSPACED + r"\S*", r"[\p{Ps}\p{Quotation_Mark}]*" + UNSPACED),
    (_NUMBER_BEGINS + r"\p{Nd}[\p{Nd}.,]*[.,]", r"\p{Nd}"),
    (_NUMBER_BEGINS + r"\p{Nd}{1,2}:", r"\p{Nd}{2}(?!\p{Nd})"),
    (r"(?:^|\s)[-−]|\p{N}[+−×÷*^]", r"\p{Nd}"),
)
# "l'", "dell'": an elision, where it is neither "the boys'" nor the end of a quotation.
_ELIDED = r"(?<=\p{L})(?<!\p{L}[szxSZX])['’]"
_QUOTED = r"(?:^|[\s\p{Ps}])['‘][^\s'’‘][^'’‘]*['’]"


def continuation(prompt: str, target: str, special: Iterable[str] = ()) -> tuple[str, str]:
    """Split a prompt and its target into what the model reads and what it must generate.

    Spaces at the end of the prompt become one space before the target, since tokenizers keep a
    space with the word after it. A space that the target begins with is kept. Otherwise one is
    added where such texts have one: not at the start of a text, after an opening quotation mark
    or bracket, within a path, an address, a number or a hyphenated word, after a special token,
    nor between words of a script that has none.

    Args:
        prompt: The text to be continued.
        target: What follows it, with some text.
        special: Texts of the tokenizer's special tokens.

    Returns:
        The two texts; put together they are the exact text that an edit is about.
    """
    read = without_end_spaces(prompt)
    if read != prompt:
        return read, " " + target.lstrip(" ")
    return prompt, " " + target if _needs_space(prompt, target, tuple(special)) else target


def joined(prompt: str, target: str) -> str:
    """The whole text of a prompt and its target; see `continuation`."""
    return "".join(continuation(prompt, target))


def sentence(prompt: str, target: str) -> str:
    """A prompt and its target as a sentence, with a full stop where it has no end of its own."""
    import regex

    text = joined(prompt, target.rstrip())
    if regex.search(r"\p{Sentence_Terminal}\Z", text):
        return text
    ends = regex.compile(rf"(?rV1){_IDEOGRAPHIC}\Z")
    wide = ends.match(text) or ends.match(prompt)
    return text + ("。" if wide else ".")


def without_end_spaces(prompt: str) -> str:
    """A prompt as a model reads it: spaces after its last word go to what follows."""
    read = prompt.rstrip(" ")
    return read if read and not read[-1].isspace() else prompt


def _needs_space(prompt: str, target: str, special: tuple[str, ...]) -> bool:
    if not prompt or prompt[-1].isspace() or prompt.endswith(special):
        return False
    if (
        prompt[-1].isascii()
        and prompt[-1].isalnum()
        and target[0].isascii()
        and target[0].isalnum()
    ):
        return True
    after, before, between, elided, quoted = _patterns()
    line = prompt.rpartition("\n")[2]
    if after.match(line) or before.match(target):
        return False
    if elided.match(line) and not quoted.match(line):
        return False
    return not any(one.match(line) and other.match(target) for one, other in between)


@cache
def _patterns() -> tuple[Any, Any, list[tuple[Any, Any]], Any, Any]:
    import regex  # its tables take some milliseconds, which `import emend` need not pay

    def end(pattern: str) -> Any:  # matched backwards, from the end of a text
        return regex.compile(rf"(?rV1)(?:{pattern})\Z")

    def begin(pattern: str) -> Any:
        return regex.compile(rf"(?V1)(?:{pattern})")

    return (
        end("|".join(_AFTER)),
        begin("|".join(_BEFORE)),
        [(end(one), begin(other)) for one, other in _BETWEEN],
        end(_ELIDED),
        end(_QUOTED),
    )
