"""Join a prompt and its target, with a space between them where the text needs one.

The one rule for training rows, scoring, evaluation, generation and in-context texts, so that an
edit is measured on exactly the text that it was made with. It depends on the prompt's end, the
target and the script; scripts without spaces between words are recognised by Unicode's line
breaking classes (UAX #14), not by name.
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
"""Full-width punctuation, which includes its own space: 。，：「」（）."""

# Prompts that need no space before any target.
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
    # Inside paths, addresses and names: "/usr/", "bob@", "https://www.", "snake_".
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
# Targets that need no space before them: they close or end something.
_BEFORE = (
    r"\s",
    r"\p{Pe}",
    WIDE_PUNCTUATION,
    r"\p{Terminal_Punctuation}(?![\p{L}\p{N}])",
    r"['’]s\b",
)
_NUMBER_BEGINS = r"(?<![^\s\p{Ps}\p{Sc}\p{Pd}])"
# Pairs of prompt and target that need no space between them.
_BETWEEN = (
    # Both sides in a script without spaces between words.
    (UNSPACED + r"\S*", r"[\p{Ps}\p{Quotation_Mark}]*" + UNSPACED),
    (_NUMBER_BEGINS + r"\p{Nd}[\p{Nd}.,]*[.,]", r"\p{Nd}"),
    (_NUMBER_BEGINS + r"\p{Nd}{1,2}:", r"\p{Nd}{2}(?!\p{Nd})"),
    (r"(?:^|\s)[-−]|\p{N}[+−×÷*^]", r"\p{Nd}"),
)
# "l'", "dell'": an elision, where it is neither "the boys'" nor the end of a quotation.
_ELIDED = r"(?<=\p{L})(?<!\p{L}[szxSZX])['’]"
_QUOTED = r"(?:^|[\s\p{Ps}])['‘][^\s'’‘][^'’‘]*['’]"


def continuation(prompt: str, target: str, special: Iterable[str] = ()) -> tuple[str, str]:
    """Split a prompt and its target into the text that the model reads and the text to generate.

    Spaces at the end of the prompt become one space before the target, since tokenizers join a
    space to the word after it. A space at the start of the target stays. Otherwise one is added,
    except at the start of a text, after an opening quotation mark or bracket, inside a path, an
    address, a number or a hyphenated word, after a special token, and between words of a script
    without spaces.

    Args:
        prompt: The text to be continued.
        target: The text that follows it, not empty.
        special: Texts of the tokenizer's special tokens.

    Returns:
        The two texts; concatenated they are the exact text of the edit.
    """
    read = without_end_spaces(prompt)
    if read != prompt:
        return read, " " + target.lstrip(" ")
    return prompt, " " + target if _needs_space(prompt, target, tuple(special)) else target


def joined(prompt: str, target: str) -> str:
    """Join a prompt and its target; see `continuation`."""
    return "".join(continuation(prompt, target))


def sentence(prompt: str, target: str) -> str:
    """Join a prompt and its target to a sentence, with a full stop if it has no end of its own."""
    import regex

    text = joined(prompt, target.rstrip())
    if regex.search(r"\p{Sentence_Terminal}\Z", text):
        return text
    ends = regex.compile(rf"(?rV1){_IDEOGRAPHIC}\Z")
    wide = ends.match(text) or ends.match(prompt)
    return text + ("。" if wide else ".")


def without_end_spaces(prompt: str) -> str:
    """Remove the spaces after a prompt's last word, which belong to the text that follows."""
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
