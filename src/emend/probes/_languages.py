"""Prompts and names for probes in languages other than English, and the language of an edit.

English has relations with wordings (`emend.probes._data`). In other languages an edit's statement
is put after an opening, its neighbours are names of the same list as its subject, and prompts that
fit every subject ask for its other facts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from emend.edits import Edit
from emend.probes._data import read, same_name

ENGLISH = "en"
UNKNOWN = "und"
"""The BCP 47 tag of an unknown language."""

# By the letters of a text; Chinese if there are no kana among its ideographs.
_SCRIPTS = (
    ("ja", re.compile("[\u3040-\u30ff]")),
    ("zh", re.compile("[\u4e00-\u9fff]")),
    ("ar", re.compile("[\u0620-\u064a]")),
)
# Letters of Persian and Urdu that Arabic does not have.
_NOT_ARABIC = re.compile("[\u067e\u0686\u0698\u06a9\u06af\u06cc\u0679\u0688\u0691\u06d2]")
_LATIN = re.compile("[A-Za-z\u00c0-\u024f]")


@dataclass(frozen=True)
class Language:
    """The prompts and names of a language.

    Attributes:
        tag: Its tag.
        fronts: Openings of a statement, with `{}` for it.
        chat: A user's question about a subject, with `{}` for it.
        general: Prompts that fit every subject.
        kinds: Names by kind.
    """

    tag: str
    fronts: tuple[str, ...]
    chat: str
    general: tuple[str, ...]
    kinds: Mapping[str, tuple[str, ...]]

    def names_like(self, subject: str) -> list[str]:
        """Return the other names of the lists that contain a subject."""
        lists = [names for names in self.kinds.values() if _holds(names, subject)]
        found = dict.fromkeys(name for names in lists for name in names)
        return [name for name in found if not same_name(name, subject)]


@cache
def languages() -> dict[str, Language]:
    """Return the languages other than English, by tag."""
    found = read("languages.json")["languages"]
    return {
        tag: Language(
            tag,
            tuple(one["fronts"]),
            one["chat"],
            tuple(one["general"]),
            {kind: tuple(names) for kind, names in one["kinds"].items()},
        )
        for tag, one in found.items()
    }


def language_of(edit: Edit) -> str:
    """Return the language of an edit: the given one, or that of its letters and common words.

    Returns:
        The first part of its tag, such as "zh"; "und" if it is none of the known ones.
    """
    if edit.language is not None:
        return edit.language.partition("-")[0].lower()
    text = edit.prompt.replace("{}", " ")
    if not any(letter.isalpha() for letter in text):
        text = edit.text
    if _NOT_ARABIC.search(text):
        return UNKNOWN
    for tag, letters in _SCRIPTS:
        if letters.search(text):
            return tag
    if not _LATIN.search(text):
        return UNKNOWN
    words = set(re.findall(r"\w+", text.casefold()))
    common = {
        tag: len(words & set(known)) for tag, known in read("languages.json")["words"].items()
    }
    return max(common, key=lambda tag: (common[tag], tag == ENGLISH))


def _holds(names: tuple[str, ...], subject: str) -> bool:
    return any(same_name(name, subject) for name in names)
